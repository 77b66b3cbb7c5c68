const path = require('node:path');
const lowrank = require('lowrank');
const { train } = require('./train.mjs');

void train(lowrank, path.resolve('node_modules/lowrank/demo')).then((told) => console.log(JSON.stringify(told)));
