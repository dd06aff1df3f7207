// Lets `import` find packages through NODE_PATH (the SDK, layers), as AWS's own Node.js does; plain Node.js does so only for require().
//
// Since Node.js 22.15 a hook for that costs nothing. Before, it costs a thread (35 ms): there it is set up only when the handler's own
// file imports something that is not in its node_modules, or when an import failed. What that misses, on Node.js 18 and 20: import()
// of such a package from a file other than the handler's, when nothing before it needed NODE_PATH.
'use strict';

const fs = require('node:fs');
const nodeModule = require('node:module');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const IMPORTS = /\bfrom\s*(["'])([^"'\n]+)\1|\bimport\s*(?:\(\s*)?(["'])([^"'\n]+)\3|\bimport\s*\(/g;

let searching = false;

/** Called before `file`, the handler's own, is loaded. */
function prepareImports(file) {
  if (nodeModule.registerHooks) return void searchNodePath({ rename: false });
  const source = fs.readFileSync(file, 'utf8');
  for (const [, , from, , imported] of source.matchAll(IMPORTS)) {
    const specifier = from ?? imported; // neither: import() of an expression
    if (!specifier || (isBare(specifier) && !nodeModule.isBuiltin(specifier) && !isInstalledFor(file, specifier))) {
      return void searchNodePath({ rename: false });
    }
  }
}

const isBare = (specifier) => !/^(?:[./#]|[a-z][a-z0-9+.-]*:)/i.test(specifier);

function isInstalledFor(file, specifier) {
  const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
  let folder = path.dirname(file);
  while (!fs.existsSync(path.join(folder, 'node_modules', name))) {
    if (folder === path.dirname(folder)) return false;
    folder = path.dirname(folder);
  }
  return true;
}

/** Make `import` fall back to the folders of NODE_PATH. False if it already does or this Node.js has no way to. */
function searchNodePath({ rename }) {
  const parents = (process.env.NODE_PATH ?? '')
    .split(path.delimiter)
    .filter((folder) => path.basename(folder) === 'node_modules')
    .map((folder) => pathToFileURL(path.join(path.dirname(folder), 'x.mjs')).href);
  if (searching || !parents.length) return false;
  searching = true;
  const isMissing = (error, specifier) => error?.code === 'ERR_MODULE_NOT_FOUND' && isBare(specifier);
  if (nodeModule.registerHooks) {
    const resolve = (specifier, context, next) => {
      try {
        return next(specifier, context);
      } catch (error) {
        if (!isMissing(error, specifier)) throw error;
        for (const parentURL of parents) {
          try {
            return next(specifier, { ...context, parentURL });
          } catch (again) {
            if (!isMissing(again, specifier)) throw again;
          }
        }
        throw error;
      }
    };
    nodeModule.registerHooks({ resolve });
    return true;
  }
  if (!nodeModule.register) return false;
  const hook = `
    const isBare = ${isBare};
    const isMissing = ${isMissing};
    const renamed = (found) =>
      ${rename} && found.url.startsWith('file:') && !found.url.includes('?') ? { ...found, url: found.url + '?again' } : found;
    export async function resolve(specifier, context, next) {
      try {
        return renamed(await next(specifier, context));
      } catch (error) {
        if (!isMissing(error, specifier)) throw error;
        for (const parentURL of ${JSON.stringify(parents)}) {
          try {
            return renamed(await next(specifier, { ...context, parentURL }));
          } catch (again) {
            if (!isMissing(again, specifier)) throw again;
          }
        }
        throw error;
      }
    }`;
  nodeModule.register(`data:text/javascript,${encodeURIComponent(hook)}`);
  return true;
}

module.exports = { prepareImports, searchNodePath };
