'use strict';
const METHODS = ['get', 'head', 'post', 'put', 'patch', 'delete'];
const SHOWN = 65536;
const byId = id => document.getElementById(id);
let spec;

function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, '');
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter(child => child != null && child !== ''));
  return node;
}

// Paragraphs, and code between backticks.
function prose(text) {
  return (text || '').split('\n\n').filter(Boolean).map(part => el('p', {}, inline(part)));
}

function inline(text) {
  return (text || '').split('`').map((part, index) => index % 2 ? el('code', {}, part) : part);
}

function resolve(node) {
  while (node && node.$ref) {
    node = node.$ref.slice(2).split('/').reduce((at, key) => at[key.replace(/~1/g, '/')], spec);
  }
  return node || {};
}

// MARK: Schemas

function nameOf(ref) { return ref.slice(ref.lastIndexOf('/') + 1); }

function typeOf(schema) {
  if (schema.$ref) return nameOf(schema.$ref);
  const choices = schema.anyOf || schema.allOf;
  if (choices) return choices.map(typeOf).join(schema.anyOf ? ' or ' : ' and ');
  if (schema.type === 'array') return 'array of ' + typeOf(schema.items || {});
  const range = [];
  if (schema.minimum != null) range.push('≥ ' + schema.minimum);
  if (schema.maximum != null) range.push('≤ ' + schema.maximum);
  if (schema.maxLength != null) range.push('≤ ' + schema.maxLength + ' characters');
  const words = schema.enum ? ': ' + schema.enum.join(', ') : '';
  const format = schema.format ? ' (' + schema.format + ')' : '';
  return (schema.type || 'anything') + format + words + (range.length ? ' ' + range.join(', ') : '');
}

function propertiesOf(schema, found = {fields: [], required: new Set()}, seen = new Set()) {
  if (schema.$ref && seen.has(schema.$ref)) return found;
  if (schema.$ref) seen.add(schema.$ref);
  const whole = resolve(schema);
  for (const part of whole.allOf || []) propertiesOf(part, found, seen);
  for (const part of (whole.anyOf || []).filter(part => part.type !== 'null')) propertiesOf(part, found, seen);
  if (whole.type === 'array') propertiesOf(whole.items || {}, found, seen);
  (whole.required || []).forEach(name => found.required.add(name));
  for (const [name, value] of Object.entries(whole.properties || {})) {
    if (!found.fields.some(([known]) => known === name)) found.fields.push([name, value]);
  }
  return found;
}

function schemaView(schema, depth = 0) {
  const {fields, required} = propertiesOf(schema);
  const head = el('span', {}, el('code', {}, typeOf(schema)), ' ', inline(resolve(schema).description));
  if (!fields.length) return head;
  const list = () => el('ul', {class: 'schema'}, fields.map(([name, value]) => el('li', {},
    el('code', {}, name), required.has(name) ? el('span', {class: 'must', title: 'required'}, ' *') : '', ' ',
    value.default !== undefined ? el('span', {class: 'dim'}, 'default ' + JSON.stringify(value.default) + ' ') : '',
    depth < 6 ? schemaView(value, depth + 1) : typeOf(value))));
  if (depth === 0) return el('div', {}, head, list());
  const box = el('details', {}, el('summary', {}, head));
  box.addEventListener('toggle', () => box.append(list()), {once: true});
  return box;
}

// MARK: Requests

function quoted(text) { return "'" + text.replace(/'/g, "'\\''") + "'"; }

// A request as the form has it now; null values are left out.
function requestOf(form) {
  let path = form.path;
  const query = [], headers = [];
  for (const {parameter, input} of form.inputs) {
    if (input.value === '') continue;
    if (parameter.in === 'path') {
      const value = encodeURIComponent(input.value).replace(/%2F/g, '/').replace(/^\//, '');
      path = path.replace('{' + parameter.name + '}', value);
    } else if (parameter.in === 'query') {
      query.push(encodeURIComponent(parameter.name) + '=' + encodeURIComponent(input.value));
    } else headers.push([parameter.name, input.value]);
  }
  const url = location.origin + path + (query.length ? '?' + query.join('&') : '');
  const body = form.body && form.body();
  if (body && body.type) headers.push(['Content-Type', body.type]);
  if (form.accept && form.accept.value) headers.push(['Accept', form.accept.value]);
  return {url, headers, body};
}

function curlOf(form) {
  const {url, headers, body} = requestOf(form);
  const parts = ['curl' + (form.method === 'head' ? ' -I' : form.method === 'get' ? '' : ' -X ' + form.method.toUpperCase()), quoted(url)];
  if (form.needsKey) parts.push('-H "X-API-Key: $SWIFTLET_API_KEY"');
  for (const [name, value] of headers) parts.push('-H ' + quoted(name + ': ' + value));
  return parts.concat(body ? body.curl : []).join(' \\\n  ');
}

// A body's editor for one media type; `value` gives what is sent and how curl says it.
function bodyEditor(type, media) {
  const schema = media.schema || {};
  if (type === 'application/json') {
    const {fields, required} = propertiesOf(schema);
    const start = media.example || Object.fromEntries(fields.filter(([name]) => required.has(name)).map(([name]) => [name, '']));
    const area = el('textarea', {spellcheck: 'false', 'aria-label': 'Body, JSON'});
    area.value = JSON.stringify(start, null, 2);
    return {node: area, value: () => area.value && {type, data: area.value, curl: ['-d ' + quoted(area.value)]}};
  }
  if (type === 'application/x-www-form-urlencoded' || type === 'multipart/form-data') {
    const {fields, required} = propertiesOf(schema);
    // What says where a file goes must come before it.
    fields.sort(([, one], [, other]) => (one.format === 'binary') - (other.format === 'binary'));
    const inputs = fields.map(([name, value]) => {
      const kind = value.format === 'binary' ? 'file' : name === 'password' ? 'password' : 'text';
      return {name, file: kind === 'file', node: el('input', {type: kind, autocomplete: 'off', required: required.has(name)})};
    });
    const node = el('div', {}, inputs.map(input => el('label', {class: 'field'}, el('code', {}, input.name), input.node)));
    const filled = () => inputs.filter(({file, node}) => file ? node.files.length : node.value);
    return {node, value: () => type === 'multipart/form-data' ? {
      data: filled().reduce((data, {name, file, node}) => (data.append(name, file ? node.files[0] : node.value), data), new FormData()),
      curl: filled().map(({name, file, node}) => '-F ' + quoted(name + '=' + (file ? '@' + node.files[0].name : node.value)))
    } : {
      type, data: new URLSearchParams(filled().map(({name, node}) => [name, node.value])).toString(),
      curl: filled().map(({name, node}) => '--data-urlencode ' + quoted(name + '=' + (name === 'password' ? '...' : node.value)))
    }};
  }
  const file = el('input', {type: 'file', 'aria-label': 'Body, a file'});
  return {node: file, value: () => file.files.length ? {type, data: file.files[0], curl: ['-T ' + quoted(file.files[0].name)]} : null};
}

async function send(form, output, stop) {
  const {url, headers, body} = requestOf(form);
  const key = byId('key').value;
  const all = new Headers(headers);
  if (key && form.needsKey) all.set(key.split('.').length === 3 ? 'Authorization' : 'X-API-Key', key.split('.').length === 3 ? 'Bearer ' + key : key);
  const controller = new AbortController();
  stop.onclick = () => controller.abort();
  stop.hidden = false;
  output.hidden = false;
  output.textContent = 'Waiting for the answer…';
  const started = performance.now();
  try {
    const reply = await fetch(url, {method: form.method.toUpperCase(), headers: all, body: body ? body.data : undefined,
      signal: controller.signal, credentials: 'omit', redirect: 'manual', cache: 'no-store'});
    let head = reply.status + ' ' + reply.statusText + ' after ' + Math.round(performance.now() - started) + ' ms\n';
    reply.headers.forEach((value, name) => { head += name + ': ' + value + '\n'; });
    output.textContent = head + '\n';
    await show(reply, output, head);
  } catch (error) {
    output.textContent += '\n' + (error.name === 'AbortError' ? 'Stopped.' : 'No answer: ' + error.message);
  }
  stop.hidden = true;
}

// Shows a body as it comes; JSON is laid out when it is whole.
async function show(reply, output, head) {
  if (!reply.body) return;
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const {done, value} = await reader.read();
    if (done) break;
    text += value;
    output.textContent = head + '\n' + text.slice(0, SHOWN);
    if (text.length > SHOWN) {
      reader.cancel();
      output.textContent += '\n… more than is shown here';
      return;
    }
  }
  if ((reply.headers.get('content-type') || '').startsWith('application/json')) {
    try { output.textContent = head + '\n' + JSON.stringify(JSON.parse(text), null, 2); } catch { /* It is shown as it came. */ }
  }
}

// MARK: Operations

function parameterRow(form, parameter) {
  const schema = resolve(parameter.schema);
  const choices = schema.enum || (schema.type === 'boolean' ? ['true', 'false'] : null);
  const input = choices
    ? el('select', {}, el('option', {value: ''}, ''), choices.map(word => el('option', {value: word}, word)))
    : el('input', {type: 'text', autocomplete: 'off', spellcheck: 'false', placeholder: schema.default != null ? 'default ' + schema.default : ''});
  form.inputs.push({parameter, input});
  return el('label', {class: 'field'},
    el('span', {}, el('code', {}, parameter.name), parameter.required ? el('span', {class: 'must', title: 'required'}, ' *') : '',
      el('span', {class: 'dim'}, ' ' + parameter.in)),
    el('span', {}, input, el('div', {class: 'dim'}, inline(parameter.description), ' ', el('code', {}, typeOf(parameter.schema)))));
}

function bodyPart(form, body) {
  const types = Object.keys(body.content);
  const place = el('div', {});
  const shape = el('div', {});
  const fields = el('details', {}, el('summary', {}, 'Its fields'), shape);
  const choose = type => {
    const editor = bodyEditor(type, body.content[type]);
    place.replaceChildren(editor.node);
    form.body = editor.value;
    shape.replaceChildren(schemaView(body.content[type].schema || {}));
    fields.hidden = !propertiesOf(body.content[type].schema || {}).fields.length;
  };
  const select = el('select', {'aria-label': 'Media type', onchange: event => choose(event.target.value)}, types.map(type => el('option', {}, type)));
  choose(types[0]);
  return [el('h3', {}, 'Body'), el('div', {class: 'row'}, types.length > 1 ? select : el('code', {}, types[0]),
    el('span', {class: 'dim'}, body.required ? 'required' : 'may be left out')), place, fields];
}

function replyView(status, reply) {
  const headers = Object.entries(reply.headers || {}).map(([name, header]) => [name, resolve(header)]);
  return el('div', {class: 'reply'}, el('strong', {}, status), ' ', inline(reply.description),
    Object.entries(reply.content || {}).map(([type, media]) => el('details', {}, el('summary', {}, el('code', {}, type)), schemaView(media.schema || {}))),
    headers.length ? el('details', {}, el('summary', {}, 'Headers'), el('ul', {class: 'schema'}, headers.map(([name, header]) =>
      el('li', {}, el('code', {}, name), ' ', inline(header.description))))) : '');
}

function inside(path, method, operation) {
  const form = {path, method, inputs: [], needsKey: (operation.security || []).length > 0};
  const parts = [...prose(operation.description)];
  if (!form.needsKey) parts.push(el('p', {class: 'dim'}, 'No key is needed.'));
  const parameters = (operation.parameters || []).map(resolve);
  if (parameters.length) parts.push(el('h3', {}, 'Parameters'), ...parameters.map(parameter => parameterRow(form, parameter)));
  if (operation.requestBody) parts.push(...bodyPart(form, resolve(operation.requestBody)));
  const kinds = Object.keys((resolve((operation.responses || {})['200']).content) || {});
  if (kinds.includes('text/event-stream') && kinds.length > 1) {
    form.accept = el('select', {}, kinds.map(kind => el('option', {value: kind}, kind)));
    parts.push(el('div', {class: 'row'}, el('label', {}, 'Answer as ', form.accept)));
  }
  const curl = el('pre', {'aria-label': 'The same with curl'});
  const output = el('pre', {role: 'status', 'aria-live': 'polite', hidden: true});
  const stop = el('button', {type: 'button', hidden: true}, 'Stop');
  const copy = el('button', {type: 'button', onclick: async () => {
    await navigator.clipboard.writeText(curl.textContent);
    copy.textContent = 'Copied';
  }}, 'Copy curl');
  const refresh = () => { curl.textContent = curlOf(form); copy.textContent = 'Copy curl'; };
  parts.push(curl, el('div', {class: 'row'}, el('button', {type: 'button', onclick: () => send(form, output, stop)}, 'Send'), stop, copy), output);
  parts.push(el('h3', {}, 'Answers'), ...Object.entries(operation.responses).map(([status, reply]) => replyView(status, resolve(reply))));
  const box = el('div', {class: 'inside', oninput: refresh, onchange: refresh}, parts);
  refresh();
  return box;
}

function operationView(path, method, operation) {
  const box = el('details', {class: 'op', id: operation.operationId}, el('summary', {},
    el('span', {class: 'method ' + method}, method.toUpperCase()), el('span', {class: 'path'}, path), el('span', {class: 'about'}, inline(operation.summary))));
  box.addEventListener('toggle', () => box.append(inside(path, method, operation)), {once: true});
  box.dataset.words = [path, method, operation.summary, operation.operationId].join(' ').toLowerCase();
  return box;
}

function openHash() {
  const box = byId(decodeURIComponent(location.hash.slice(1)));
  if (box && box.matches('details')) { box.open = true; box.scrollIntoView(); }
}

function build() {
  const main = byId('main'), nav = byId('nav');
  byId('version').textContent = spec.info.version + ' · OpenAPI ' + spec.openapi;
  main.replaceChildren(...prose(spec.info.description));
  const all = Object.entries(spec.paths).flatMap(([path, item]) => METHODS.filter(method => item[method]).map(method => [path, method, item[method]]));
  for (const tag of spec.tags) {
    const own = all.filter(([, , operation]) => operation.tags.includes(tag.name));
    main.append(el('section', {'aria-label': tag.name}, el('h2', {}, tag.name), prose(tag.description), own.map(item => operationView(...item))));
    nav.append(el('h2', {}, tag.name), el('ul', {}, own.map(([, , operation]) =>
      el('li', {}, el('a', {href: '#' + operation.operationId}, inline(operation.summary))))));
  }
  addEventListener('hashchange', openHash);
  openHash();
}

byId('find').addEventListener('input', event => {
  const words = event.target.value.toLowerCase().split(/\s+/);
  for (const box of document.querySelectorAll('.op')) box.hidden = !words.every(word => box.dataset.words.includes(word));
  for (const section of document.querySelectorAll('section')) section.hidden = !section.querySelector('.op:not([hidden])');
});

fetch('/openapi.json').then(reply => reply.json()).then(value => { spec = value; build(); })
  .catch(error => { byId('state').textContent = 'The description could not be loaded: ' + error.message; });
