// Errors of the Node.js runtime client and the shape in which errors leave the process.
//
// Used by every other file here; knows nothing of the Runtime API or the handler.
'use strict';

/** An error of the runtime itself: `Runtime.<name>`, a class of its own each, since JSON logs show the class. */
function runtimeError(name, message) {
  const { [name]: RuntimeError } = { [name]: class extends Error {} };
  RuntimeError.prototype.name = `Runtime.${name}`;
  const error = new RuntimeError(message);
  Error.captureStackTrace(error, runtimeError);
  return error;
}

function isError(value) {
  // Errors of other realms (vm contexts, test runners) are no instances of our Error.
  return (
    value instanceof Error ||
    (value && typeof value.name === 'string' && typeof value.message === 'string' && typeof value.stack === 'string')
  );
}

/** The error as the caller of the function gets it. Keys in AWS's order; DEL would be refused by AWS's own parsers. */
function errorPayload(error) {
  try {
    if (isError(error)) {
      return {
        errorType: error.name?.replaceAll('\x7f', '%7F'),
        errorMessage: error.message?.replaceAll('\x7f', '%7F'),
        trace: error.stack?.replaceAll('\x7f', '%7F').split('\n') ?? [],
      };
    }
    return { errorType: typeof error, errorMessage: String(error), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
      trace: [],
    };
  }
}

/** A value that is safe in a header line. */
const headerText = (value) => String(value).replace(/[^\x20-\x7e]/g, '?');

module.exports = { errorPayload, headerText, isError, runtimeError };
