// SPDX-License-Identifier: Apache-2.0
// The worker thread: the agent's socket, and the interrupts of a main thread that may never return to its event loop.
'use strict';

const fs = require('fs');
const inspector = require('inspector');
const net = require('net');
const { parentPort } = require('worker_threads');
const { analyze } = require('./source.js');

const READY = 1, PREPARED = 2, DONE = 3;
const PREPARE = 1, EXECUTE = 2;
const MAXIMUM_MESSAGE = 32 << 20;
const SIGINT = 2;
const PROBE_MILLISECONDS = 50;
// A main thread that answers none of so many sits in a system call; the children it may wait for are killed.
const STUCK_PROBES = 6;
// The main thread's interpreter waits under this name for the worker to find it.
const HOOKS = '__swiftlet_hooks__';

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.offset = 0;
  }

  number() {
    this.offset += 4;
    return this.bytes.readUInt32LE(this.offset - 4);
  }

  field() {
    const start = this.offset + 4;
    const end = this.number() + start;
    if (end > this.bytes.length) throw new RangeError('a field of the agent\'s message is cut off');
    this.offset = end;
    return this.bytes.subarray(start, end);
  }
}

class Control {
  constructor(port) {
    this.port = port;
    this.call = null;
    this.count = 0;
    this.pieces = [];
    this.length = 0;
    this.connectToMain();
    this.catchInterrupts();
    port.on('message', (message) => this[message.action](message));
    // Node keeps what it inherits from its children: descriptor 3 is marked close-on-exec.
    this.socket = new net.Socket({ fd: 3, readable: true, writable: true });
    this.socket.on('data', (data) => this.receive(data));
    this.socket.on('error', () => this.end());
    this.socket.on('close', () => this.end());
    analyze('import a from "a"; a');
    port.postMessage({ action: 'warm' });
  }

  connectToMain() {
    this.session = new inspector.Session();
    this.session.connectToMainThread();
    const expression = `{ const hooks = ${HOOKS}; delete globalThis.${HOOKS}; hooks }`;
    this.session.post('Runtime.evaluate', { expression }, (error, { result }) => { this.id = result.objectId; });
  }

  catchInterrupts() {
    // `process.on` is the main thread's alone, and its event loop may never come round.
    const { Signal } = process.binding('signal_wrap');
    this.signal = new Signal();
    this.signal.onsignal = () => this.interrupt();
    this.signal.start(SIGINT);
  }

  // Messages of the agent

  receive(data) {
    this.pieces.push(data);
    this.length += data.length;
    try {
      while (this.takeMessage());
    } catch {
      this.end();
    }
  }

  takeMessage() {
    if (this.length < 5) return false;
    if (this.pieces[0].length < 5) this.join();
    const length = this.pieces[0].readUInt32LE(0);
    if (length < 1 || length > MAXIMUM_MESSAGE) throw new RangeError('a message of the agent has a wrong length');
    if (this.length < length + 4) return false;
    this.join();
    const [bytes] = this.pieces;
    this.pieces = [bytes.subarray(length + 4)];
    this.length -= length + 4;
    this.handle(bytes[4], new Reader(bytes.subarray(5, length + 4)));
    return true;
  }

  join() {
    this.pieces = [Buffer.concat(this.pieces)];
  }

  handle(kind, reader) {
    if (kind === PREPARE) this.prepare(reader);
    else if (kind === EXECUTE) this.execute(reader.field().toString());
    else throw new RangeError('the agent sent a message of an unknown kind');
  }

  prepare(reader) {
    const seed = reader.field();
    if (seed.length !== 32) throw new RangeError('the seed has a wrong length');
    const variables = [];
    for (let count = reader.number(); count > 0; count--) variables.push([reader.field().toString(), reader.field().toString()]);
    this.count = 0;
    this.port.postMessage({ action: 'prepare', seed: Uint8Array.from(seed), variables });
  }

  execute(source) {
    if (this.call) throw new Error('the agent sent a call during another');
    const number = ++this.count;
    this.call = { number, before: process.cpuUsage() };
    this.port.postMessage({ action: 'execute', number, name: `<cell-${number}>`, ...analyze(source) });
  }

  send(kind, payload = Buffer.alloc(0)) {
    const head = Buffer.alloc(5);
    head.writeUInt32LE(payload.length + 1);
    head[4] = kind;
    this.socket.write(Buffer.concat([head, payload]));
  }

  end() {
    this.port.postMessage({ action: 'end' });
    // The main thread may never come to read that.
    setTimeout(() => process.kill(process.pid, 'SIGKILL'), 200);
  }

  // Messages of the main thread

  prepared() {
    this.send(PREPARED);
  }

  done({ number, status, code }) {
    if (number === 0) return this.send(READY);
    const { user, system } = process.cpuUsage(this.call.before);
    clearInterval(this.call.repeat);
    this.call = null;
    const payload = Buffer.alloc(13);
    payload[0] = status;
    payload.writeInt32LE(code, 1);
    payload.writeBigUInt64LE(BigInt(user + system) * 1000n, 5);
    this.send(DONE, payload);
  }

  interrupt() {
    if (!this.call || this.call.repeat) return;
    let count = 0;
    // A second probe behind one that terminates would swallow the termination.
    let isAsked = false;
    const probe = () => {
      if (++count === STUCK_PROBES) killDescendants();
      if (isAsked) return;
      isAsked = true;
      const functionDeclaration = 'function (number) { this.interrupt(number); }';
      const parameters = { objectId: this.id, functionDeclaration, arguments: [{ value: this.call.number }], silent: true };
      this.session.post('Runtime.callFunctionOn', parameters, () => { isAsked = false; });
    };
    this.call.repeat = setInterval(probe, PROBE_MILLISECONDS);
    probe();
  }
}

/** What `execSync` and its like wait for: the main thread cannot be interrupted before that ends. */
function killDescendants() {
  const parents = new Map();
  for (const name of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const fields = fs.readFileSync(`/proc/${name}/stat`, 'latin1').replace(/^.*\) /s, '').split(' ');
      parents.set(Number(name), Number(fields[1]));
    } catch {
      // It has ended meanwhile.
    }
  }
  const isOurs = (id) => id !== undefined && (parents.get(id) === process.pid || isOurs(parents.get(id)));
  for (const id of [...parents.keys()].filter(isOurs)) {
    try {
      process.kill(id, 'SIGKILL');
    } catch {
      // It has ended meanwhile.
    }
  }
}

new Control(parentPort);
