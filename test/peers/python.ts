import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

function find(): string | null {
  const python = process.env['LOWRANK_PEERS_PYTHON'] ?? path.join(root, '.peers/bin/python');
  // Looked for, not imported: that takes seconds, in each file of tests.
  const lookFor = "import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, ('torch', 'transformers', 'peft')))";
  return existsSync(python) && spawnSync(python, ['-c', lookFor]).status === 0 ? python : null;
}

/** A Python that has torch, transformers and peft (`LOWRANK_PEERS_PYTHON`, or `.peers/`), or null. */
export const peersPython = find();

if (peersPython === null) console.warn('peers: no Python with torch, transformers and peft (LOWRANK_PEERS_PYTHON); the tests beside them are not run');
