// SPDX-License-Identifier: Apache-2.0
// Core modules that a template's interpreter loads ahead. Node compiles each at its first use, which takes long under emulation.
'use strict';

const fs = require('fs');

// What programs use most and Node has not loaded at its start. None of them warns that it is deprecated or experimental.
const MODULES = ['assert', 'dns', 'http2', 'https', 'perf_hooks', 'readline/promises', 'stream/promises', 'tls', 'zlib'];
// A word of the kernel's command line: the guest becomes a template.
const TEMPLATE = 'swiftlet.template';
// Made by the interpreter that preloads. One that is started after it, in a clone, has a user who waits.
const MARK = '/run/swiftlet/preloaded-javascript';

function isTemplate() {
  try {
    if (!fs.readFileSync('/proc/cmdline', 'utf8').split(/\s/).includes(TEMPLATE)) return false;
    fs.closeSync(fs.openSync(MARK, 'wx', 0o600));
    return true;
  } catch {
    // Not Linux as the agent's guest has it, or no longer the first interpreter.
    return false;
  }
}

/** Loads what `fetch` needs, which its global classes do when they are looked up; they stay as they are. */
function loadFetch() {
  const descriptor = Object.getOwnPropertyDescriptor(globalThis, 'Response');
  if (!descriptor?.get || !descriptor.configurable) return;
  void globalThis.Response;
  Object.defineProperty(globalThis, 'Response', descriptor);
}

function preload() {
  for (const name of MODULES) require(name);
  loadFetch();
}

module.exports = { isTemplate, preload };
