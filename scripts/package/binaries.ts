import { readFileSync } from 'node:fs';

/** A file of `prebuilds/<platform>-<arch>/`, as `build/Release` has it. A new one is a line here. */
export interface Binary {
  readonly file: string;
  readonly what: string;
  /** Names it may export. */
  readonly exports: RegExp;
  /** Names that it finds in the process that opens it. */
  readonly finds?: RegExp;
}

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
/** The C library under its soname, which has the minor version. */
export const cLibrary = `liblowrank.so.${version.split('.').slice(0, 2).join('.')}`;

export const binaries: readonly Binary[] = [
  { file: 'lowrank.node', what: 'the addon, with the kernels for the CPU', exports: /^(napi_register_module_v1|node_api_module_get_api_version_v1)$/, finds: /^(napi|node_api)_/ },
  { file: 'liblowrank_cuda.so', what: 'the plugin for NVIDIA GPUs', exports: /^lowrank_backend$/ },
  { file: cLibrary, what: 'the library for C', exports: /^lowrank_\w+@@LOWRANK_[\d.]+$/ },
];

/** The newest version of each that a binary may ask for: those of enterprise Linux 8, on which Node 20 to 24 are built. */
export const floor: Readonly<Record<string, string>> = { GLIBC: '2.28', GLIBCXX: '3.4.25', CXXABI: '1.3.11', GCC: '8.0' };

/** Libraries that every Linux with glibc and a C++ program has. */
export const systemLibraries = /^(libc|libm|libdl|libpthread|librt|libstdc\+\+|libgcc_s|ld-linux-[-\w]+)\.so\.\d+$/;
