// Compiled, not run: the declarations from CommonJS.
import lowrank = require('lowrank');

export const rate: number = lowrank.schedule('linear', { lr: 1, steps: 2 })(0);
