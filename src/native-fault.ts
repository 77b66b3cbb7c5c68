/** What is known when the addon can't be loaded. */
export interface LoadFacts {
  /** As `process.platform` and `process.arch` say. */
  readonly platform: string;
  readonly arch: string;
  /** Version of the running glibc; null on musl and off Linux. */
  readonly glibc: string | null;
  /** Versions of Node and of its Node-API. */
  readonly node: string;
  readonly napi: string | undefined;
  /** The folder of the package. */
  readonly root: string;
  /** Where it was looked for, and which of those files there are. */
  readonly places: readonly string[];
  readonly present: readonly string[];
  /** What LOWRANK_ADDON says. */
  readonly chosen: string | undefined;
  /** What the system said of a file that it didn't load. */
  readonly reason: string;
}

/** Several lines: what failed, where, on what system, and what helps there. */
export function explainFault(facts: LoadFacts): string {
  const { platform, arch, glibc, node, napi, present, places } = facts;
  const system = platform !== 'linux' ? '' : glibc === null ? ', musl (no glibc)' : `, glibc ${glibc}`;
  const reason = present.length > 0 ? facts.reason : facts.chosen === undefined ? 'there is no lowrank.node for this platform' : 'LOWRANK_ADDON names a file that is not there';
  return [
    `lowrank: the native addon must load (${reason})`,
    `  platform: ${platform}-${arch}${system}, Node ${node}, Node-API ${napi ?? 'unknown'}`,
    `  looked in: ${(present.length > 0 ? present : places).join(', ')}`,
    `  remedy: ${remedyFor(facts).join('\n          ')}`,
  ].join('\n');
}

function remedyFor(facts: LoadFacts): string[] {
  const { platform, arch, glibc, reason, present, chosen } = facts;
  if (chosen !== undefined) return ['set LOWRANK_ADDON to a lowrank.node of this version, or unset it'];
  if (/module 'bindings'/.test(reason)) return [`a bundle needs the package's folder prebuilds/${platform}-${arch} beside it, or LOWRANK_ADDON set to its lowrank.node;`, 'or mark lowrank as external, so that it stays in node_modules'];
  if (platform === 'win32') return ['there is no Windows build: use it inside WSL 2, where it runs as on Linux'];
  if (platform !== 'linux') return [`there is no ${platform} build: use a Linux container or machine (glibc, x64 or arm64)`];
  if (/Node-API|NAPI|napi_|Module version/i.test(reason)) return ['use Node 20.19 or newer'];
  if (glibc === null) return ['use a system with glibc (Debian, Ubuntu, Fedora; the image node:22-slim instead of node:22-alpine), or try to', ...buildLines(facts)];
  if (/GLIBC(XX)?_|CXXABI_/.test(reason)) return ['this system is older than the addon was built for (glibc 2.28, libstdc++ of GCC 8); use a newer one, or', ...buildLines(facts)];
  if (/libstdc\+\+|libgcc_s/.test(reason)) return ['install the C++ runtime library (Debian: apt-get install libstdc++6)'];
  if (present.length > 0) return ['install the package again (the file may be cut short or of another platform), or', ...buildLines(facts)];
  return arch === 'x64' ? buildLines(facts) : [`no addon comes ready for linux-${arch}`, ...buildLines(facts)];
}

/** An installed package brings its own command; a checkout has its script. */
function buildLines({ root }: LoadFacts): string[] {
  const command = /[\\/]node_modules[\\/]/.test(root) ? 'npx lowrank build' : `npm run build:native   (in ${root})`;
  return ['build it with g++ 11 or newer, cmake and Highway (Debian: apt-get install g++ cmake libhwy-dev):', command];
}
