#!/usr/bin/env node
// prebuildify calls `node-gyp rebuild --arch=... --target=...`; this answers with cmake-js, which builds both the addon and,
// where nvcc is, the CUDA plugin. LOWRANK_CMAKE_ARGS="-DNAME=VALUE ..." is passed on.
import { spawnSync } from 'node:child_process';

const given = process.argv.slice(2);
const wanted = ['rebuild'];
const arch = given.find((argument) => argument.startsWith('--arch='))?.slice('--arch='.length);
if (arch !== undefined) wanted.push('--arch', arch);
if (given.includes('--debug')) wanted.push('--debug');
for (const define of (process.env.LOWRANK_CMAKE_ARGS ?? '').split(/\s+/).filter((text) => text.startsWith('-D'))) wanted.push(`--CD${define.slice(2)}`);
process.exit(spawnSync('cmake-js', wanted, { stdio: 'inherit' }).status ?? 1);
