import path from 'node:path';
import * as lowrank from 'lowrank';
import { train } from './train.mjs';

console.log(JSON.stringify(await train(lowrank, path.resolve('node_modules/lowrank/demo'))));
