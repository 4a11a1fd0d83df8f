// What people do, by name: `scenario(context, url, details, ask)` returns what came of it.

import * as editing from './editing.mjs';
import * as everybody from './everybody.mjs';
import * as pictures from './pictures.mjs';
import * as trouble from './trouble.mjs';
import * as ways from './ways.mjs';
import * as weight from './weight.mjs';

export const scenarios = { ...editing, ...everybody, ...pictures, ...trouble, ...ways, ...weight };
