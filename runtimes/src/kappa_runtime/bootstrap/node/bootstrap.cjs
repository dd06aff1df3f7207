// The Node.js runtime interface client of Kappa: loads the handler, asks the Runtime API for events and answers them.
//
// The supervisor starts it as `node bootstrap.cjs` for functions with a nodejs runtime (Node.js 18 and later); everything it needs is in
// the environment (AWS_LAMBDA_RUNTIME_API, _HANDLER, LAMBDA_TASK_ROOT, NODE_PATH). It behaves as AWS's aws-lambda-ric does: version 3
// (callbacks, callbackWaitsForEmptyEventLoop) for runtimes up to nodejs22.x, version 4 (neither) from nodejs24.x on. A start should
// cost little more than Node.js itself, so it is CommonJS (loads faster than a module), needs no package and loads nothing early that
// not every function uses.
//
// It refuses to outlive its supervisor: a Runtime API that is gone, or that answers /next with anything but 200, ends the process.
// It has no limits of its own: time, memory and response size are the supervisor's to enforce.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { createRequire, registerHooks } = require('node:module');

const { errorPayload, headerText, isError, runtimeError } = require('./errors.cjs');
const { RuntimeApi, ignoreAnswer } = require('./runtime_api.cjs');

const env = process.env;

// CommonJS modules of the function get the "Require stack" they get on AWS, and no view of where Kappa is installed.
const RUNTIME_FILE = '/var/runtime/index.mjs';
const requireForHandler = createRequire(RUNTIME_FILE);

// Chosen by the runtime that was asked for, not by the Node.js that runs it: the nearest one may stand in.
const RUNTIME_MAJOR = Number(/^AWS_Lambda_nodejs(\d+)\.x$/.exec(env.AWS_EXECUTION_ENV ?? '')?.[1] ?? 0);
const WITHOUT_CALLBACKS = RUNTIME_MAJOR >= 24;

// --------------------------------------------------------------------------------------------------------- console, logs

const intoError = (value) => (isError(value) ? value : new Error(value));

/** The error as it appears in the function's text log: own properties included, the stack as a list. */
function errorLogLine(error) {
  const expand = (_key, value) => {
    if (!(value instanceof Error)) return value;
    const expanded = { errorType: value.name, errorMessage: value.message, code: value.code, ...value };
    if (typeof value.stack === 'string') expanded.stack = value.stack.split('\n');
    return expanded;
  };
  try {
    return `\t${JSON.stringify(error, expand)}`;
  } catch {
    return `\t${JSON.stringify(errorPayload(error))}`;
  }
}

let requestId = WITHOUT_CALLBACKS ? '-' : undefined;
let tenantId;

/** Write all of `bytes` before returning, so that no line is lost when the handler exits and memory does not grow when nobody reads. */
function writeFully(fd, bytes) {
  let written = 0;
  while (written < bytes.length) {
    try {
      written += fs.writeSync(fd, bytes, written);
    } catch (error) {
      // The function closed its own output, or the reader is gone: as on AWS, that is no error of the function.
      if (error.code !== 'EAGAIN') return;
      // The function made the pipe non-blocking and it is full: a moment's sleep, then again.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
  }
}

const describeErrors = (_key, value) =>
  value instanceof Error
    ? {
        errorType: value.constructor?.name ?? 'UnknownError',
        errorMessage: value.message,
        stackTrace: typeof value.stack === 'string' ? value.stack.split('\n') : value.stack,
        ...value,
      }
    : value;

function jsonRecord(time, level, format, args) {
  const record = { timestamp: time, level, requestId };
  if (tenantId !== undefined) record.tenantId = tenantId;
  if (args.length === 1) {
    record.message = args[0];
    try {
      return JSON.stringify(record, describeErrors);
    } catch {
      record.message = format(args[0]);
      return JSON.stringify(record);
    }
  }
  record.message = format(...args);
  const error = args.find((arg) => arg instanceof Error);
  if (error) {
    record.errorType = error.constructor?.name ?? 'UnknownError';
    record.errorMessage = error.message;
    record.stackTrace = typeof error.stack === 'string' ? error.stack.split('\n') : [];
  }
  return JSON.stringify(record);
}

/** Give console.* AWS's text or JSON format, on standard output or in the frames of the telemetry descriptor where there is one. */
function patchConsole() {
  const json = env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === 'JSON';
  const levels = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'];
  const lowest = Math.max(0, levels.indexOf(env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()));
  const frameFd = Number.parseInt(env._LAMBDA_TELEMETRY_LOG_FD, 10);
  delete env._LAMBDA_TELEMETRY_LOG_FD;
  let format;

  const log = (rank, args) => {
    format ??= require('node:util').format;
    const now = new Date();
    const time = now.toISOString();
    const line = json
      ? jsonRecord(time, levels[rank], format, args)
      : `${time}\t${requestId}\t${levels[rank]}\t${format(...args)}`;
    if (Number.isNaN(frameFd)) {
      // Without frames a line break would end the record; AWS's client writes a carriage return there.
      writeFully(1, Buffer.from(`${line.replaceAll('\n', '\r')}\n`));
      return;
    }
    const payload = Buffer.from(json ? line : `${line}\n`);
    const frame = Buffer.allocUnsafe(16 + payload.length);
    frame.writeUInt32BE(((json ? 0xa55a0002 : 0xa55a0003) | ((rank + 1) << 2)) >>> 0, 0);
    frame.writeUInt32BE(payload.length, 4);
    frame.writeBigInt64BE(BigInt(now.valueOf()) * 1000n, 8);
    payload.copy(frame, 16);
    writeFully(frameFd, frame);
  };
  for (const [rank, level] of levels.entries()) {
    const shown = rank >= lowest || level === 'FATAL';
    console[level.toLowerCase()] = shown ? (message, ...params) => log(rank, [message, ...params]) : () => {};
  }
  console.log = console.info;

  // Node.js makes a pipe behind process.stdout non-blocking, and process.exit then loses what the pipe had no room for.
  for (const name of ['stdout', 'stderr']) {
    const lazy = Object.getOwnPropertyDescriptor(process, name);
    if (typeof lazy?.get !== 'function') continue;
    Object.defineProperty(process, name, {
      ...lazy,
      get() {
        const stream = lazy.get.call(process);
        stream?._handle?.setBlocking?.(true);
        Object.defineProperty(process, name, lazy);
        return stream;
      },
    });
  }

  return json
    ? (_label, error) => console.error(intoError(error))
    : (label, error) => console.error(label, errorLogLine(intoError(error)));
}

// --------------------------------------------------------------------------------------------------------------- handler

const HANDLER_STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HANDLER_HIGHWATERMARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const HTTP_INTEGRATION_TYPE = 'application/vnd.awslambda.http-integration-response';

const HttpResponseStream = {
  /** Send `prelude` (statusCode, headers, cookies) ahead of what is written to `stream`. */
  from(stream, prelude) {
    stream.setContentType(HTTP_INTEGRATION_TYPE);
    const metadata = JSON.stringify(prelude);
    stream._onBeforeFirstWrite = (write) => {
      write(metadata);
      write(new Uint8Array(8));
    };
    return stream;
  },
};

function defineGlobals() {
  if (!['1', 'true'].includes(env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA)) {
    const streamifyResponse = (handler, options) => {
      handler[HANDLER_STREAMING] = 'response';
      if (typeof options?.highWaterMark === 'number') handler[HANDLER_HIGHWATERMARK] = Math.trunc(options.highWaterMark);
      return handler;
    };
    globalThis.awslambda = { ...globalThis.awslambda, streamifyResponse, HttpResponseStream };
  }
  // On AWS the entry point is an ES module: packages that look for the main module find none.
  process.mainModule = undefined;
}

async function loadHandler(taskRoot, handlerName) {
  if (handlerName.includes('..')) {
    const advice = 'Use absolute paths when specifying root directories in handler names.';
    throw runtimeError('MalformedHandlerName', `'${handlerName}' is not a valid handler name. ${advice}`);
  }
  const base = path.basename(handlerName);
  const folder = handlerName.slice(0, handlerName.indexOf(base));
  const dot = base.indexOf('.');
  if (dot < 0) throw runtimeError('MalformedHandlerName', 'Bad handler');

  let loaded;
  try {
    loaded = await loadModule(taskRoot, folder, base.slice(0, dot));
  } catch (error) {
    if (error instanceof SyntaxError) {
      const wrapped = runtimeError('UserCodeSyntaxError', String(error));
      wrapped.stack = error.stack; // names the file and the line
      throw wrapped;
    }
    if (error?.code === 'MODULE_NOT_FOUND') throw runtimeError('ImportModuleError', String(error));
    throw error;
  }
  const follow = (from) => base.slice(dot + 1).split('.').reduce((nested, key) => nested?.[key], from);
  const handler = follow(loaded) ?? follow(loaded?.default);
  if (!handler) throw runtimeError('HandlerNotFound', `${handlerName} is undefined or not exported`);
  if (typeof handler !== 'function') throw runtimeError('HandlerNotFound', `${handlerName} is not a function`);
  if (handler[HANDLER_STREAMING] && handler[HANDLER_STREAMING] !== 'response') {
    throw runtimeError('MalformedStreamingHandler', 'Only response streaming is supported.');
  }
  if (WITHOUT_CALLBACKS && handler.length >= 3 && !handler[HANDLER_STREAMING]) {
    throw runtimeError(
      'CallbackHandlerDeprecated',
      'ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24. You need to modify ' +
        'this function to use a supported handler signature to use Node.js 24 or later. For more information see ' +
        'https://docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.',
    );
  }
  return handler;
}

async function loadModule(taskRoot, folder, name) {
  const file = path.resolve(taskRoot, folder, name);
  if (fs.existsSync(file)) return requireForHandler(file);
  if (fs.existsSync(`${file}.js`)) {
    return isInModulePackage(path.dirname(file)) ? importFile(`${file}.js`) : requireFile(`${file}.js`);
  }
  if (fs.existsSync(`${file}.mjs`)) return importFile(`${file}.mjs`);
  if (fs.existsSync(`${file}.cjs`)) return requireFile(`${file}.cjs`);
  return requireForHandler(requireForHandler.resolve(name, { paths: [taskRoot, path.resolve(taskRoot, folder)] }));
}

/** Whether the nearest package.json makes .js files ES modules. */
function isInModulePackage(folder) {
  if (path.basename(folder) === 'node_modules') return false;
  const file = path.join(folder, 'package.json');
  if (fs.existsSync(file)) {
    try {
      return JSON.parse(fs.readFileSync(file, 'utf8'))?.type === 'module';
    } catch (error) {
      console.warn(`${file} cannot be read, it will be ignored for ES module detection purposes.`, error);
      return false;
    }
  }
  const parent = path.dirname(folder);
  return parent !== folder && isInModulePackage(parent);
}

function requireFile(file) {
  if (registerHooks || fs.readFileSync(file).includes('import(')) require('./node_path.cjs').prepareImports(file);
  return requireForHandler(file);
}

async function importFile(file) {
  const { pathToFileURL } = require('node:url');
  const { prepareImports, searchNodePath } = require('./node_path.cjs');
  prepareImports(file);
  try {
    return await import(pathToFileURL(file));
  } catch (error) {
    // A dependency further down needs NODE_PATH. Node.js remembers the failure, so all of it is loaded under another name.
    if (error?.code !== 'ERR_MODULE_NOT_FOUND' || !searchNodePath({ rename: true })) throw error;
    return import(pathToFileURL(file));
  }
}

// --------------------------------------------------------------------------------------------------------------- runtime

function stringify(value) {
  try {
    return JSON.stringify(value === undefined ? null : value) ?? 'null';
  } catch {
    const message = 'Unable to stringify response body';
    throw WITHOUT_CALLBACKS ? runtimeError('JSONStringifyError', message) : new Error(message);
  }
}

function parseHeader(headers, name, label) {
  const text = headers[name];
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`Cannot parse ${label} as json: ${error}`);
  }
}

/** The part of the handler's context that comes from the environment and the event's headers, in AWS's order. */
function invocationContext(headers) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  const fromHeaders = {
    clientContext: parseHeader(headers, 'lambda-runtime-client-context', 'ClientContext'),
    identity: parseHeader(headers, 'lambda-runtime-cognito-identity', 'CognitoIdentity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: requestId,
    tenantId,
  };
  const getRemainingTimeInMillis = () => deadline - Date.now();
  const fromEnvironment = {
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
  };
  const functionName = env.AWS_LAMBDA_FUNCTION_NAME;
  const functionVersion = env.AWS_LAMBDA_FUNCTION_VERSION;
  if (!WITHOUT_CALLBACKS) return { functionVersion, functionName, ...fromEnvironment, ...fromHeaders, getRemainingTimeInMillis };
  const xRayTraceId = headers['lambda-runtime-trace-id'];
  return { ...fromHeaders, xRayTraceId, getRemainingTimeInMillis, functionName, functionVersion, ...fromEnvironment };
}

/** Hands events to the handler. The names of class and methods are those of AWS's stack traces. */
class Runtime {
  constructor(api, handler, logError) {
    this.api = api;
    this.handler = handler;
    this.logError = logError;
    this.onEmptyLoop = null; // called once when nothing is left to do in the process
    this.outgoing = null; // the answer that goes out at the end of this turn of the event loop
    this.open = null; // id of the invocation that has no answer yet
    this.stream = null; // its response stream, in a streaming handler
  }

  /** Ask for the next event, with the answer to the last one if there is one, and hand it to the handler. */
  next(request) {
    const event = this.api.next(request);
    if (this.handler[HANDLER_STREAMING]) this.handleOnceStreaming(event);
    else this.handleOnceNonStreaming(event);
  }

  #accept(headers) {
    requestId = headers['lambda-runtime-aws-request-id'];
    tenantId = headers['lambda-runtime-aws-tenant-id'];
    const trace = headers['lambda-runtime-trace-id'];
    if (!trace) delete env._X_AMZN_TRACE_ID;
    else if (env._X_AMZN_TRACE_ID !== trace) env._X_AMZN_TRACE_ID = trace;
    this.open = requestId;
    this.onEmptyLoop = null;
  }

  async handleOnceNonStreaming(nextEvent) {
    const { headers, body } = await nextEvent;
    this.#accept(headers);
    const done = this.#completion();
    let context;
    const callback = (error, result) => done.settle(error, result, context?.callbackWaitsForEmptyEventLoop);
    try {
      if (WITHOUT_CALLBACKS) {
        context = invocationContext(headers);
        const result = this.handler(JSON.parse(body), context);
        Promise.resolve(result).then(done.succeed, done.fail);
        return;
      }
      this.onEmptyLoop = () => done.succeed(null);
      const event = JSON.parse(body);
      context = { callbackWaitsForEmptyEventLoop: true, succeed: done.succeed, fail: done.fail, done: done.settle };
      Object.assign(context, invocationContext(headers));
      const result = this.handler(event, context, callback);
      if (typeof result?.then === 'function') result.then(done.succeed, done.fail);
    } catch (error) {
      done.fail(error);
    }
  }

  async handleOnceStreaming(nextEvent) {
    const { headers, body } = await nextEvent;
    this.#accept(headers);
    const { createResponseStream } = require('./response_stream.cjs');
    const stream = (this.stream = createResponseStream(this.api, this.open, this.handler[HANDLER_HIGHWATERMARK]));
    const ended = new Promise((resolve, reject) => {
      stream.on('finish', resolve).on('error', reject);
    });
    const unfinished = new Promise((_resolve, reject) => {
      this.onEmptyLoop = () => reject(new Error('Response stream is not finished.'));
    });
    ended.catch(() => {}); // also awaited below; a stream that breaks earlier must not count as unhandled
    unfinished.catch(() => {});
    let context = { callbackWaitsForEmptyEventLoop: true };
    try {
      const event = JSON.parse(body);
      context = Object.assign(WITHOUT_CALLBACKS ? {} : context, invocationContext(headers));
      const result = this.handler(event, stream, context);
      if (typeof result?.then !== 'function') throw new Error('Streaming does not support non-async handlers.');
      if ((await Promise.race([result, unfinished])) !== undefined) console.warn('Streaming handlers ignore return values.');
      await Promise.race([ended, unfinished]);
    } catch (error) {
      this.logError('Invoke Error', error);
      if (!stream.begun) return this.#answer(this.#errorPost(error));
      if (!stream.writableEnded && !stream.destroyed) await stream.fail(error);
    }
    this.open = null;
    if (WITHOUT_CALLBACKS || !context.callbackWaitsForEmptyEventLoop) this.next();
    else this.onEmptyLoop = () => this.next();
  }

  /** The ways in which a handler can end its invocation; only the first one used counts. */
  #completion() {
    const id = this.open;
    const isOpen = () => this.open === id && !this.outgoing;
    const fail = (error) => {
      if (!isOpen()) return;
      this.onEmptyLoop = null;
      const reason = error ?? 'handled';
      this.logError('Invoke Error', reason);
      this.#answer(this.#errorPost(reason));
    };
    const succeed = (result) => {
      if (!isOpen()) return;
      this.onEmptyLoop = null;
      let payload;
      try {
        payload = stringify(result);
      } catch (error) {
        return fail(error);
      }
      this.#answer(this.api.post(`invocation/${id}/response`, payload));
    };
    let settled = false;
    const settle = (error, result, waits = false) => {
      if (settled) return;
      settled = true;
      if (error !== undefined && error !== null) fail(error);
      else if (waits === true) this.onEmptyLoop = () => succeed(result);
      else succeed(result);
    };
    return { succeed, fail, settle };
  }

  #errorPost(error) {
    const payload = errorPayload(error);
    const type = `Lambda-Runtime-Function-Error-Type: ${headerText(payload.errorType)}\r\n`;
    return this.api.post(`invocation/${this.open}/error`, JSON.stringify(payload), type);
  }

  /** The next event is asked for only when this turn went well: a process that is about to die must not be given one. */
  #answer(request) {
    this.outgoing = request;
    setImmediate(() => {
      if (!this.outgoing) return;
      this.outgoing = null;
      this.open = null;
      this.next(request);
    });
  }

  /** Tell the caller what ended the process, then end it. */
  crash(error, exitCode) {
    const finish = () => process.exit(exitCode);
    if (this.open && this.stream?.begun && !this.stream.writableEnded) return void this.stream.fail(error).then(finish);
    const request = this.outgoing ?? (this.open && this.#errorPost(error));
    this.outgoing = null;
    this.open = null;
    if (request) this.api.send(request, finish);
    else finish();
  }

  /** The handler exits with its answer given but not sent. */
  flush() {
    if (this.outgoing) this.api.send(this.outgoing, ignoreAnswer);
    this.outgoing = null;
  }
}

async function main() {
  const api = new RuntimeApi(env.AWS_LAMBDA_RUNTIME_API);
  const logError = patchConsole();
  let runtime = null;
  let loading = true;

  const crash = (error, exitCode) => {
    if (runtime) return runtime.crash(error, exitCode);
    const payload = errorPayload(error);
    const type = `Lambda-Runtime-Function-Error-Type: ${headerText(payload.errorType)}\r\n`;
    api.send(api.post('init/error', JSON.stringify(payload), type), () => process.exit(exitCode));
  };
  process.on('uncaughtException', (error) => {
    logError('Uncaught Exception', error);
    crash(error, 129);
  });
  process.on('unhandledRejection', (reason) => {
    const error = runtimeError('UnhandledPromiseRejection', String(reason));
    error.reason = reason;
    logError('Unhandled Promise Rejection', error);
    crash(error, 128);
  });
  process.on('beforeExit', () => {
    if (loading) process.exit(13); // Node.js's own status for a top-level await that never settles
    const then = runtime?.onEmptyLoop;
    if (runtime) runtime.onEmptyLoop = null;
    then?.();
  });
  process.on('exit', () => runtime?.flush());

  defineGlobals();
  let handler;
  try {
    handler = await loadHandler(env.LAMBDA_TASK_ROOT, env._HANDLER);
  } catch (error) {
    logError(WITHOUT_CALLBACKS ? 'Init Error' : 'Uncaught Exception', error);
    loading = false;
    return crash(error, WITHOUT_CALLBACKS ? 1 : 129);
  }
  loading = false;
  runtime = new Runtime(api, handler, logError);
  runtime.next();
}

main();
