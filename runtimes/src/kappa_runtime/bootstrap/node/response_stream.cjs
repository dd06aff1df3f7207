// The stream that a streaming handler writes its response to. Loaded when the first such handler is invoked.
//
// Each write becomes a chunk of the POST that answers the invocation; an error after the first chunk becomes a trailer, because the
// status has been sent by then. Writes wait for the connection, so a handler cannot run far ahead of a slow reader.
'use strict';

const { Writable } = require('node:stream');
const { errorPayload, headerText, runtimeError } = require('./errors.cjs');
const { ignoreAnswer } = require('./runtime_api.cjs');

/** The stream a streaming handler writes to: each write is a chunk of the POST, an error after the first one is a trailer. */
function createResponseStream(api, id, highWaterMark) {
  let contentType = 'application/octet-stream';
  let begun = false;
  let answered;

  class ResponseStream extends Writable {
    setContentType(type) {
      if (begun) throw runtimeError('InvalidStreamingOperation', 'Cannot set content-type, too late.');
      contentType = type;
    }

    write(chunk, encoding, callback) {
      return super.write(this.#serialised(chunk), encoding, callback);
    }

    end(chunk, encoding, callback) {
      if (typeof chunk === 'function' || chunk === undefined || chunk === null) return super.end(chunk);
      return super.end(this.#serialised(chunk), encoding, callback);
    }

    /** End the response with an error; the caller sees what was streamed so far, then the error. Resolves when that was answered. */
    fail(error) {
      const payload = errorPayload(error);
      const encoded = Buffer.from(JSON.stringify(payload)).toString('base64');
      const type = headerText(payload.errorType);
      const trailers = `Lambda-Runtime-Function-Error-Type: ${type}\r\nLambda-Runtime-Function-Error-Body: ${encoded}\r\n`;
      return new Promise((resolve) => {
        answered = resolve;
        api.endStream(`0\r\n${trailers}\r\n`);
      });
    }

    get begun() {
      return begun;
    }

    _write(chunk, _encoding, callback) {
      this.#begin();
      if (!chunk.length) return callback(); // an empty chunk would end the response
      api.write(Buffer.concat([Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from('\r\n')]), callback);
    }

    _final(callback) {
      this.#begin();
      answered = () => callback();
      api.endStream('0\r\n\r\n');
    }

    #serialised(chunk) {
      return typeof chunk === 'string' || chunk instanceof Uint8Array ? chunk : JSON.stringify(chunk);
    }

    #begin() {
      if (begun) return;
      begun = true;
      const trailer = 'Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n';
      api.startStream(
        `invocation/${id}/response`,
        `Content-Type: ${headerText(contentType)}\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n${trailer}`,
        (answer) => {
          ignoreAnswer(answer);
          if (answered) answered();
          else this.destroy(new Error(`the response was refused with ${answer.status}`));
        },
      );
      this._onBeforeFirstWrite?.((bytes) => this._write(Buffer.from(bytes), 'buffer', () => {}));
    }
  }
  return new ResponseStream({ highWaterMark });
}

module.exports = { createResponseStream };
