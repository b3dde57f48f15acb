// SPDX-License-Identifier: Apache-2.0
// The guest's JavaScript interpreter: one Node.js process for the life of a VM, its variables kept between calls.
//
// The agent starts it and talks to it over descriptor 3; docs/agent-protocol.md has the messages. User code has the main thread
// to itself and is evaluated there by V8's inspector in its REPL mode. A worker thread holds the agent's socket and SIGINT, so
// that code which never returns to the event loop can still be interrupted.
'use strict';

const fs = require('fs');
const Module = require('module');
const path = require('path');
const util = require('util');
const v8 = require('v8');
const inspector = require('inspector');
const { Writable } = require('stream');
const { Worker } = require('worker_threads');
const { isTemplate, preload } = require('./preload.js');
const { importName } = require('./source.js');

const FINISHED = 0, EXCEPTION = 1, EXIT = 2;
const INTERRUPTED = 130;
// User code thus runs behind `Runtime.evaluate`, not in it: V8 aborts when code is terminated just as that takes its promise.
const PREFIX = 'await null;';
const HOOKS = '__swiftlet_hooks__';

/** Writes everything before it returns; a pipe that is full is waited for. */
function writeAll(descriptor, data, write, cell) {
  for (let offset = 0; offset < data.length;) {
    try {
      offset += write(descriptor, data, offset);
    } catch (error) {
      // With nobody left to read, there is nobody to tell.
      if (error.code !== 'EAGAIN') return;
      Atomics.wait(cell, 0, 0, 2);
    }
  }
}

/** Standard output or error, written synchronously; user code cannot close it. */
function makeStream(descriptor) {
  const { writeSync } = fs;
  const cell = new Int32Array(new SharedArrayBuffer(4));
  const stream = new Writable({
    write(chunk, encoding, done) {
      writeAll(descriptor, chunk, writeSync, cell);
      done();
    },
  });
  const { write } = stream;
  stream.fd = descriptor;
  stream.end = (...rest) => {
    const done = typeof rest.at(-1) === 'function' ? rest.pop() : null;
    if (rest[0] != null) stream.write(...rest);
    if (done) process.nextTick(done);
    return stream;
  };
  stream.destroy = () => stream;
  stream.restore = () => {
    if (stream.write !== write) stream.write = write;
  };
  return stream;
}

/** xoshiro128**: V8's own generator would go on alike in every clone of a template. */
function makeRandom(seed) {
  let [a, b, c, d] = [0, 4, 8, 12].map((at) => seed.readInt32LE(at) ^ seed.readInt32LE(at + 16));
  if (!(a | b | c | d)) a = 1;
  const next = () => {
    const scaled = Math.imul(b, 5);
    const result = Math.imul((scaled << 7) | (scaled >>> 25), 9) >>> 0;
    const shifted = b << 9;
    c ^= a; d ^= b; b ^= c; a ^= d; c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result;
  };
  return () => ((next() >>> 5) * 0x4000000 + (next() >>> 6)) / 0x20000000000000;
}

class Interpreter {
  constructor(port) {
    this.port = port;
    this.call = null;
    this.value = undefined;
    this.inspect = util.inspect;
    this.streams = [makeStream(1), makeStream(2)];
    this.session = new inspector.Session();
    this.session.connect();
    // The two sessions find the hooks by this name once; the worker's look-up takes it away.
    Object.defineProperty(globalThis, HOOKS, { value: this, configurable: true });
    this.post('Runtime.evaluate', { expression: HOOKS }, (error, { result }) => { this.id = result.objectId; });
    this.makeGlobals();
    this.makeProcess();
    port.on('message', (message) => this[message.action](message));
  }

  post(method, parameters, done) {
    this.session.post(method, parameters, done);
  }

  makeGlobals() {
    const base = fs.existsSync('/app') ? '/app' : process.cwd();
    const module = new Module(path.join(base, '[cell]'), null);
    module.filename = module.id;
    // Debian's packages; its own node knows the directory, others do not.
    module.paths = [...Module._nodeModulePaths(base), '/usr/share/nodejs'];
    module._compile(`module.exports = [require, (name, options) => import(name, options)];`, module.filename);
    const [require, importModule] = module.exports;
    module.exports = {};
    const define = (name, value, enumerable = true) =>
      Object.defineProperty(globalThis, name, { value, enumerable, writable: true, configurable: true });
    define('require', require);
    define('module', module);
    define('exports', module.exports);
    define('__filename', module.filename);
    define('__dirname', base);
    define(importName, importModule, false);
    const [stdout, stderr] = this.streams;
    // The inspector's console would keep what was printed last.
    define('console', Object.assign(new console.Console(stdout, stderr), { Console: console.Console }), false);
    Object.defineProperty(globalThis, '_', {
      get: () => this.last,
      set: (value) => define('_', value),
      configurable: true,
    });
    Math.random = makeRandom(Buffer.alloc(32));
  }

  makeProcess() {
    for (const [index, name] of ['stdout', 'stderr'].entries()) {
      Object.defineProperty(process, name, { value: this.streams[index], enumerable: true, configurable: true, writable: true });
    }
    process.argv = [process.execPath];
    process.execArgv = [];
    this.reallyExit = process.reallyExit.bind(process);
    process.exit = (code) => this.exit(code);
    process.reallyExit = process.exit;
    process.setUncaughtExceptionCaptureCallback((error) => {
      if (process.listenerCount('uncaughtException')) process.emit('uncaughtException', error, 'uncaughtException');
      else this.printError(error);
    });
    Error.prepareStackTrace = prepareStackTrace;
  }

  // What the worker asks for

  warm() {
    for (const name of ['child_process', 'crypto', 'http', 'fs/promises', 'url', 'timers/promises']) require(name);
    if (isTemplate()) preload();
    this.inspect([{ a: [1, 'x'], b: new Map([[1, new Error('e').stack]]) }]);
    this.execute({ number: 0, name: '<warm>', source: 'await null; 1', isSilent: true });
  }

  prepare({ seed, variables }) {
    for (const [name, value] of variables) process.env[name] = value;
    Math.random = makeRandom(Buffer.from(seed));
    // Contexts that user code makes later take theirs from V8.
    v8.setFlagsFromString(`--random-seed=${Buffer.from(seed).readInt32LE(28) || 1}`);
    // What a rehearsal left behind.
    this.last = undefined;
    this.port.postMessage({ action: 'prepared' });
  }

  execute({ number, name, source, isSilent }) {
    const call = (this.call = { number, name, source, isSilent, isInterruptible: false });
    const expression = `${PREFIX}${source}\n//# sourceURL=${name}`;
    const parameters = { expression, replMode: true, objectGroup: name };
    this.post('Runtime.evaluate', parameters, (error, answer) => {
      if (this.call !== call) return;
      call.isInterruptible = false;
      if (error) this.finish(EXCEPTION, INTERRUPTED);
      else if (answer.exceptionDetails) this.fail(call, answer.exceptionDetails);
      else this.succeed(call, answer.result);
    });
    call.isInterruptible = true;
  }

  end() {
    this.reallyExit(0);
  }

  // The end of a call

  /** The object that the inspector describes. */
  take(remote) {
    const argument = remote.objectId ? { objectId: remote.objectId }
      : remote.unserializableValue ? { unserializableValue: remote.unserializableValue } : { value: remote.value };
    const functionDeclaration = 'function (value) { this.value = value; }';
    this.value = undefined;
    this.post('Runtime.callFunctionOn', { objectId: this.id, functionDeclaration, arguments: [argument], silent: true });
    return this.value;
  }

  succeed(call, remote) {
    try {
      if (!call.isSilent && remote.type !== 'undefined') this.show(call, this.take(remote));
    } catch (error) {
      this.printError(error);
      return this.finish(EXCEPTION, 1);
    }
    this.finish(FINISHED, 0);
  }

  show(call, value) {
    this.last = value;
    // Objects may have code of their own for this.
    call.isInterruptible = true;
    const text = this.inspect(value);
    call.isInterruptible = false;
    process.stdout.write(text + '\n');
  }

  fail(call, details) {
    const error = this.take(details.exception);
    // Only what could not be compiled has a script and no trace; its position is not in its stack.
    if (details.scriptId && !details.stackTrace) this.printPosition(call, details);
    this.printError(error);
    this.finish(EXCEPTION, 1);
  }

  printPosition({ name, source }, { lineNumber, columnNumber }) {
    const lines = source.split('\n');
    // The end of input is behind a line of ours.
    const at = Math.min(lineNumber, lines.length - 1);
    const column = at === lineNumber ? columnNumber - (at ? 0 : PREFIX.length) : lines[at].length;
    this.streams[1].write(`${name}:${at + 1}\n${lines[at]}\n${' '.repeat(Math.max(0, column))}^\n`);
  }

  printError(error) {
    let text;
    try {
      text = util.types.isNativeError(error) || error instanceof Error ? this.inspect(error) : `Uncaught ${this.inspect(error)}`;
    } catch {
      text = 'Uncaught exception, which cannot be shown';
    }
    this.streams[1].restore();
    this.streams[1].write(text + '\n');
  }

  finish(status, code) {
    if (!this.call) return;
    const { number, name } = this.call;
    this.call = null;
    this.value = undefined;
    this.post('Runtime.releaseObjectGroup', { objectGroup: name });
    for (const stream of this.streams) stream.restore();
    this.port.postMessage({ action: 'done', number, status, code });
  }

  // What ends a call early

  exit(code = process.exitCode) {
    if (this.call) this.finish(EXIT, Number(code ?? 0) & 0xff);
    this.terminate();
    // It ends here; unlike an exception, no `catch` or `finally` of user code sees it.
    for (;;);
  }

  terminate() {
    this.post('Runtime.terminateExecution');
  }

  /** Called from the worker between any two instructions of user code, or while the event loop waits. */
  interrupt(number) {
    // The worker asks again until the call has ended.
    if (this.call?.number !== number || !this.call.isInterruptible) return;
    const frames = this.framesBeneath();
    if (!frames.length && this.waiting !== number) {
      // No code, so the event loop waits and comes to this; or one of endless microtasks is about to run, and it never does.
      this.waiting = number;
      setImmediate(() => {
        if (this.call?.number === number) this.endInterrupted([]);
      });
      return;
    }
    this.endInterrupted(frames);
    this.terminate();
  }

  endInterrupted(frames) {
    this.streams[1].restore();
    this.streams[1].write(prepareStackTrace(new Error('the call was interrupted'), frames) + '\n');
    this.finish(EXCEPTION, INTERRUPTED);
  }

  framesBeneath() {
    const { prepareStackTrace: prepare, stackTraceLimit: limit } = Error;
    const trace = {};
    Error.prepareStackTrace = (_, frames) => frames;
    Error.stackTraceLimit = 20;
    Error.captureStackTrace(trace, this.interrupt);
    // The first is the inspector's call of the hook.
    const frames = trace.stack.slice(1);
    Error.prepareStackTrace = prepare;
    Error.stackTraceLimit = limit;
    return frames;
  }
}

/** A stack without the frames of this file and what is below them. */
function prepareStackTrace(error, frames) {
  const isOurs = (frame) => frame?.getFileName() === __filename;
  const bottom = frames.findIndex((frame, at) => frame.getFileName() === 'node:inspector' && isOurs(frames[at + 1]));
  const shown = (bottom < 0 ? frames : frames.slice(0, bottom)).filter((frame) => !isOurs(frame));
  let title;
  try {
    title = Error.prototype.toString.call(error);
  } catch {
    title = '<error>';
  }
  // The first line of a cell begins behind the prefix.
  const unshift = (text) => text.replace(/(<cell-\d+>:1:)(\d+)/, (_, place, column) => place + Math.max(1, column - PREFIX.length));
  return [title, ...shown.map((frame) => unshift(String(frame)))].join('\n    at ');
}

const worker = new Worker(path.join(__dirname, 'agent.js'), { execArgv: ['--expose-internals', '--no-warnings'] });
worker.on('error', (error) => {
  fs.writeSync(2, util.inspect(error) + '\n');
  process.kill(process.pid, 'SIGKILL');
});
new Interpreter(worker);
