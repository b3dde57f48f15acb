// SPDX-License-Identifier: Apache-2.0
// What the inspector's REPL mode does not do by itself.
'use strict';

const importName = '__swiftlet_import__';

/** The source as it is to be evaluated, and whether its value is to be kept quiet. */
function analyze(source) {
  // As in Node's own REPL, braces that can be an object are one.
  const wrapped = /^\s*\{/.test(source) && !/;\s*$/.test(source) && parse(`(${source}\n)`);
  if (wrapped) return { source: replaceImports(`(${source}\n)`, wrapped), isSilent: false };
  const tree = parse(source);
  if (!tree) return { source, isSilent: false };
  const last = tree.body.at(-1);
  const isSilent = last?.type !== 'ExpressionStatement' || source[last.end - 1] === ';';
  return { source: replaceImports(source, tree), isSilent };
}

/** The syntax tree, or nothing when it is wrong: V8 says best what is. */
function parse(source) {
  // Only the worker is started with the flag that lets it have Node's own parser.
  const acorn = require('internal/deps/acorn/acorn/dist/acorn');
  try {
    const options = { ecmaVersion: 'latest', allowAwaitOutsideFunction: true, allowImportExportEverywhere: true };
    return acorn.parse(source, options);
  } catch {
    return null;
  }
}

/** V8 knows no module that evaluated code belongs to: `import` becomes a call of the hidden function that does. */
function replaceImports(source, tree) {
  if (!source.includes('import')) return source;
  const edits = [];
  const visit = (node) => {
    if (node.type === 'ImportExpression') edits.push([node.start, node.start + 'import'.length, importName]);
    if (node.type === 'ImportDeclaration') edits.push([node.start, node.end, declaration(node, source)]);
    for (const part of Object.values(node)) {
      for (const child of Array.isArray(part) ? part : [part]) if (typeof child?.type === 'string') visit(child);
    }
  };
  visit(tree);
  edits.sort((one, other) => other[0] - one[0]);
  for (const [start, end, text] of edits) source = source.slice(0, start) + text + source.slice(end);
  return source;
}

/** `import a, { b as c } from 'd'` as a statement of a script, as many lines long as it was. */
function declaration(node, source) {
  const lines = '\n'.repeat(source.slice(node.start, node.end).split('\n').length - 1);
  const load = `await ${importName}(${node.source.raw})`;
  const names = [];
  let whole = null;
  for (const { type, imported, local } of node.specifiers) {
    if (type === 'ImportNamespaceSpecifier') whole = local.name;
    else names.push(`${imported ? imported.raw ?? imported.name : 'default'}: ${local.name}`);
  }
  const some = names.length ? `{ ${names.join(', ')} }` : null;
  if (whole && some) return `const ${whole} = ${load}, ${some} = ${whole};${lines}`;
  return `${whole || some ? `const ${whole ?? some} = ` : ''}${load};${lines}`;
}

module.exports = { analyze, importName };
