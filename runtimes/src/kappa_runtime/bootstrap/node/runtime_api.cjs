// The Runtime API as a client sees it: one keep-alive connection, written and read without an HTTP library.
//
// Requests go out in order and answers come back in order, so the answer to one invocation and the request for the next event share one
// write. Chunked answers are understood, since other Runtime APIs (AWS's emulator) send them. It refuses to go on without a Runtime
// API: a connection lost while an answer is due, or a /next that is not answered with 200, ends the process, as in AWS's clients.
'use strict';

const fs = require('node:fs');
const net = require('node:net');

const LONGEST_HEAD = 1024 * 1024;

/** One keep-alive connection; answers come in the order of the requests, so a POST and the next GET go out in one write. */
class RuntimeApi {
  constructor(address) {
    const colon = address.lastIndexOf(':');
    this.host = address.slice(0, colon);
    this.port = Number(address.slice(colon + 1));
    this.hostHeader = `Host: ${address}\r\n`;
    this.getNext = `GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n${this.hostHeader}\r\n`;
    this.socket = null;
    this.expected = []; // what to do with each answer that is still to come; null stands for the next event
    this.onEvent = null;
    this.head = null; // bytes of an incomplete answer head
    this.answer = null; // the answer whose body is being read
  }

  /** Send the answer to an invocation, if one is given, and ask for the next event. Resolves with its headers and body (text). */
  next(answer) {
    if (answer) this.expected.push(ignoreAnswer);
    this.#askForEvent(answer ?? []);
    return new Promise((resolve) => {
      this.onEvent = resolve;
    });
  }

  /** A whole request with a JSON body. */
  post(target, body, headers = '') {
    return [
      `POST /2018-06-01/runtime/${target} HTTP/1.1\r\n${this.hostHeader}Content-Type: application/json\r\n` +
        `${headers}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n`,
      body,
    ];
  }

  /** Send a request made by `post`; `then` is called when it was answered. */
  send(request, then) {
    this.expected.push(then);
    this.#write(...request);
    this.socket.ref();
  }

  /** Start a chunked POST; chunks follow through `write`. */
  startStream(target, headers, then) {
    this.expected.push(then);
    this.#write(
      `POST /2018-06-01/runtime/${target} HTTP/1.1\r\n${this.hostHeader}Transfer-Encoding: chunked\r\n${headers}\r\n`,
    );
  }

  write(data, then) {
    if (this.socket) this.socket.write(data, then);
    else then(new Error('the Runtime API closed the connection'));
  }

  /** The last part of a stream: from here on its answer is waited for. */
  endStream(data) {
    this.write(data, () => {}); // a connection that breaks ends the process
    this.socket?.ref();
  }

  #askForEvent(before) {
    this.expected.push(null);
    this.#write(...before, this.getNext);
    this.socket.ref(); // waiting for an event keeps the process alive; the function's own time does not
  }

  #write(...parts) {
    const socket = this.#socket();
    const total = parts.reduce((sum, part) => sum + part.length, 0);
    if (total < 65536) return void socket.write(parts.join(''));
    socket.cork();
    for (const part of parts) socket.write(part);
    socket.uncork();
  }

  #socket() {
    if (this.socket) return this.socket;
    const buffer = Buffer.allocUnsafeSlow(65536);
    const callback = (length) => {
      this.#received(buffer.subarray(0, length));
      return true;
    };
    const socket = net.connect({ host: this.host, port: this.port, noDelay: true, onread: { buffer, callback } });
    let cause = 'closed the connection';
    socket.on('error', (error) => {
      cause = error.message;
    });
    socket.on('close', () => {
      if (this.socket !== socket) return;
      this.socket = null;
      // Between requests a server may close; the next request connects again. With an answer outstanding the supervisor is gone.
      if (this.expected.length) die(cause);
    });
    this.socket = socket;
    return socket;
  }

  #received(bytes) {
    while (bytes.length) {
      if (!this.answer) {
        if (this.head) bytes = Buffer.concat([this.head, bytes]);
        const end = bytes.indexOf('\r\n\r\n');
        if (end < 0) {
          if (bytes.length > LONGEST_HEAD) die('answered with an endless head');
          this.head = Buffer.from(bytes); // copied: the read buffer is used again
          return;
        }
        this.head = null;
        this.answer = new Answer(bytes.toString('utf8', 0, end));
        bytes = bytes.subarray(end + 4);
      }
      bytes = this.answer.read(bytes);
      if (!this.answer.complete) return;
      const answer = this.answer;
      this.answer = null;
      this.#answered(answer);
    }
  }

  #answered(answer) {
    if (answer.status < 200) return; // 100 Continue: the real answer follows
    if (!this.expected.length) die('sent an answer that nobody asked for');
    const then = this.expected.shift();
    if (answer.headers.connection?.toLowerCase() === 'close') {
      const asked = this.expected.length;
      this.socket.destroy();
      this.socket = null;
      if (asked) {
        // Only a GET /next is ever sent behind another request; the server has not read it.
        this.expected = [];
        this.#askForEvent([]);
      }
    }
    // From here on the function's own work keeps the event loop alive, or lets it end.
    if (!this.expected.length) this.socket?.unref();
    if (then) return then(answer);
    if (answer.status !== 200) die(`answered /next with ${answer.status} ${answer.body()}`);
    this.onEvent({ headers: answer.headers, body: answer.body() });
  }
}

function ignoreAnswer(answer) {
  // AWS's client goes on after a refused answer, too. What was wrong belongs in the log.
  if (answer.status >= 300) fs.writeSync(2, `Runtime API: ${answer.status} ${answer.body()}\n`);
}

/** One HTTP answer; `read` takes bytes as they come and returns those beyond its end. */
class Answer {
  constructor(head) {
    const lines = head.split('\r\n');
    this.status = Number(lines[0].slice(9, 12));
    this.headers = {};
    for (let index = 1; index < lines.length; index++) {
      const colon = lines[index].indexOf(':');
      this.headers[lines[index].slice(0, colon).toLowerCase()] = lines[index].slice(colon + 1).trim();
    }
    this.chunked = this.headers['transfer-encoding']?.toLowerCase() === 'chunked';
    this.length = this.chunked ? 0 : Number(this.headers['content-length'] ?? 0);
    this.parts = [];
    this.got = 0;
    this.rest = null;
    this.complete = !this.chunked && this.length === 0;
  }

  read(bytes) {
    if (this.complete) return bytes;
    if (this.chunked) return this.#readChunks(bytes);
    const part = bytes.subarray(0, this.length - this.got);
    this.got += part.length;
    this.complete = this.got === this.length;
    if (this.complete && !this.parts.length) this.text = part.toString(); // the usual case: all of it in one read
    else this.parts.push(Buffer.from(part));
    return bytes.subarray(part.length);
  }

  #readChunks(bytes) {
    if (this.rest) bytes = Buffer.concat([this.rest, bytes]);
    this.rest = null;
    while (!this.complete) {
      const end = bytes.indexOf('\r\n');
      const size = end < 0 ? 0 : Number.parseInt(bytes.toString('latin1', 0, end), 16);
      if (end < 0 || bytes.length < end + 4 + size) {
        this.rest = Buffer.from(bytes);
        return bytes.subarray(bytes.length);
      }
      if (Number.isNaN(size)) die('sent a malformed chunk');
      this.parts.push(Buffer.from(bytes.subarray(end + 2, end + 2 + size)));
      this.complete = size === 0;
      bytes = bytes.subarray(end + 4 + size);
    }
    return bytes;
  }

  body() {
    this.text ??= Buffer.concat(this.parts).toString();
    return this.text;
  }
}

function die(reason) {
  fs.writeSync(2, `Runtime API: ${reason}\n`);
  process.exit(1);
}

module.exports = { RuntimeApi, ignoreAnswer };
