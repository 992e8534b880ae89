// The page: the tree of sources, what is known of one of them, and the planes. Text from files is text, never HTML.

import { Layer, Planes, problem } from './planes.js';

const base = new URL('.', location.href).href;
const $ = (id) => document.getElementById(id);
const planes = new Planes($('planes'), { changed: placed, busy });
let node = null; // what is shown
let readout = null; // what is still to be read for the values under the cross
const overlaid = new Set(); // places beside it that Neuroglancer gets too

function make(tag, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(data ?? {})) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const path = (entry) => [entry.source, ...(entry.path ? entry.path.split('/') : [])].map(encodeURIComponent).join('/');
const key = (entry) => [entry.source, entry.path].filter(Boolean).join('/');

async function ask(place, init) {
  const reply = await fetch(base + place, init);
  if (!reply.ok) throw new Error(await problem(reply));
  return reply;
}

function fail(error) {
  $('problem').hidden = !error;
  $('problem').textContent = error ? String(error.message ?? error) : '';
}

// --- the tree

function row(entry) {
  const item = make('li');
  const below = make('ul', { hidden: true });
  const opens = entry.more || entry.children?.length > 0;
  const toggle = make('button', { className: 'open', type: 'button', textContent: opens ? '▸' : '' });
  toggle.disabled = !opens;
  toggle.setAttribute('aria-label', `What is in ${entry.name}`);
  toggle.setAttribute('aria-expanded', 'false');
  const name = make('button', { className: 'name', type: 'button', title: entry.name }, entry.name, ' ', make('span', { className: 'kind', textContent: kind(entry) }));
  if (entry.kind === 'error') name.classList.add('bad');
  name.dataset.key = key(entry);
  name.addEventListener('click', () => select(entry.source, entry.path));
  const line = make('div', { className: 'row' }, toggle, name);
  if (entry.kind === 'image' || entry.kind === 'array') {
    const box = make('input', { type: 'checkbox', title: 'Show it in Neuroglancer too', checked: overlaid.has(key(entry)) });
    box.setAttribute('aria-label', `Show ${entry.name} in Neuroglancer too`);
    box.addEventListener('change', () => {
      overlaid[box.checked ? 'add' : 'delete'](key(entry));
      address();
    });
    line.append(box);
  }
  let { children, left_out: leftOut } = entry;
  async function open(shown) {
    if (shown && !children) {
      try {
        const query = new URLSearchParams({ source: entry.source, path: entry.path, depth: 1 });
        const [found] = (await (await ask(`api/tree?${query}`)).json()).sources;
        if (found.error) throw new Error(`${entry.name} cannot be opened: ${found.error}`);
        children = found.children ?? [];
        leftOut = found.left_out;
      } catch (error) {
        fail(error);
        return;
      }
    }
    if (shown && !below.childElementCount) {
      below.append(...children.map(row));
      if (leftOut) below.append(make('li', { className: 'kind', textContent: `and ${leftOut} more` }));
    }
    below.hidden = !shown;
    toggle.textContent = shown ? '▾' : '▸';
    toggle.setAttribute('aria-expanded', String(shown));
  }
  toggle.addEventListener('click', () => open(below.hidden));
  item.append(line, below);
  return item;
}

function kind(entry) {
  if (entry.kind === 'error') return `cannot be opened: ${entry.error}`;
  return entry.shape ? `${entry.kind} ${entry.shape.join(' × ')}` : entry.kind;
}

// --- one node

let turns = 0;

async function select(source, place, hash = null) {
  const turn = ++turns; // another one may be selected before this one is there
  fail(null);
  let found;
  try {
    found = await (await ask(`api/node/${path({ source, path: place })}`)).json();
    if (turn !== turns) return;
  } catch (error) {
    if (turn !== turns) return;
    node = null;
    for (const id of ['head', 'view', 'gallery', 'about']) $(id).hidden = true;
    fail(error);
    return;
  }
  node = found;
  for (const one of document.querySelectorAll('.tree .name')) one.setAttribute('aria-current', String(one.dataset.key === key(node)));
  document.title = `${node.name} · voxfetch`;
  $('title').textContent = node.title || node.name;
  const { shape, axes, dtype } = node;
  $('summary').textContent = shape ? `${node.kind}, ${node.format}, ${axes.map((name, i) => `${name} ${shape[i]}`).join(' × ')}, ${dtype}` : `${node.kind}, ${node.format}`;
  $('head').hidden = $('about').hidden = false;
  about();
  $('gallery').hidden = !node.keys;
  if (node.keys) gallery();
  $('view').hidden = !node.picture;
  $('neuroglancer').hidden = !node.picture && !node.keys;
  if (node.picture) await show(hash);
  else if (node.reason) fail(node.reason);
  address();
}

function thumbnail(place, size) {
  const box = make('div', { className: 'thumb' });
  const image = make('img', { loading: 'lazy', alt: 'Middle plane', src: `${base}img/${place}/thumb.png?size=${size}` });
  image.addEventListener('error', () => box.replaceChildren('no picture'));
  box.append(image);
  return box;
}

function gallery() {
  $('gallery').replaceChildren(...node.keys.slice(0, 200).map((name) => {
    const entry = { source: node.source, path: [node.path, name].filter(Boolean).join('/') };
    const button = make('button', { type: 'button' }, thumbnail(path(entry), 176), name);
    button.addEventListener('click', () => select(entry.source, entry.path));
    return button;
  }));
}

function rows(table, pairs) {
  table.replaceChildren(...pairs.filter(([, value]) => value !== undefined && value !== null && value !== '').map(([name, value]) => make('tr', {}, make('th', { textContent: name, scope: 'row' }), make('td', {}, value))));
}

function about() {
  $('python').textContent = node.python;
  const texts = { z3: 'Zarr v3, OME-Zarr 0.5', z2: 'Zarr v2, OME-Zarr 0.4', pc: 'precomputed', raw: 'files as they are' };
  rows($('urls'), Object.entries(texts).map(([plane, text]) => [text, copied(node.urls[plane] + '/')]));
  const levels = node.levels ?? [];
  for (const id of ['levels', 'thumbnail']) $(id).closest('.part').hidden = !levels.length;
  $('levels').replaceChildren(
    make('tr', {}, ...['', 'shape', 'voxel size', 'chunks', 'shards'].map((text) => make('th', { textContent: text, scope: 'col' }))),
    ...levels.map((level, i) => make('tr', {}, ...[i, level.shape.join(' × '), sizes(level), level.chunks.join(' × '), level.shards?.join(' × ') ?? 'none'].map((text) => make('td', { textContent: text })))),
  );
  const first = levels[0];
  rows($('metadata'), [
    ['Kind', node.kind], ['Format', node.format], ['Type', node.dtype], ['Axes', node.axes?.join(', ')],
    ['Shape', node.shape?.join(' × ')], ['Voxel size', first && sizes(first)],
    ['Codecs', first?.codecs], ['Size', levels.length ? bytes(levels.reduce((sum, level) => sum + level.nbytes, 0)) : null],
    ['Labels', node.labels?.join(', ')], ['Channels', node.picture?.channels.map((one) => one.label).filter(Boolean).join(', ')],
  ]);
  $('attrs').textContent = JSON.stringify(node.attrs, null, 2);
  $('thumbnail').replaceChildren(node.picture ? thumbnail(path(node), 256) : 'none');
}

function copied(text) {
  const code = make('code', { textContent: text });
  const button = make('button', { type: 'button', textContent: 'Copy' });
  button.addEventListener('click', () => copy(text, button));
  return make('span', { className: 'copy' }, code, button);
}

const number = (value) => Number(value.toPrecision(6)).toString();

function sizes(level) {
  if (!level.scale) return '';
  return level.scale.map((size, i) => `${number(size)}${level.units[i] ? ` ${level.units[i]}` : ''}`).join(' × ');
}

function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(count, 1)) / 10));
  return `${number(Number((count / 1024 ** power).toFixed(1)))} ${units[power]}`;
}

async function copy(text, button) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    prompt('Copy this:', text); // no clipboard for this page
  }
  setTimeout(() => { button.textContent = said; }, 1500);
}

// --- the planes and what is drawn on them

async function show(hash) {
  const image = node;
  const layers = image.picture.is_label ? [new Layer(base, image)] : image.picture.channels.map((_, i) => new Layer(base, image, i));
  // More channels than have looks are one layer, with a slider.
  if (image.picture.channels.length < image.picture.levels[0].shape[image.picture.channel]) layers.length = 1;
  const labels = await Promise.all((image.labels ?? []).map(async (name) => {
    const place = [image.path, 'labels', name].filter(Boolean).join('/');
    try {
      const found = await (await ask(`api/node/${path({ source: image.source, path: place })}`)).json();
      return found.picture?.is_label ? new Layer(base, found) : null;
    } catch (error) {
      fail(`The labels ${name} are not shown. ${error.message}`);
      return null;
    }
  }));
  if (node !== image) return; // another one was selected meanwhile
  planes.show([...layers, ...labels.filter(Boolean)]);
  if (hash) restore(hash);
  controls();
  planes.update();
}

function controls() {
  const form = $('controls');
  form.replaceChildren(make('h3', { textContent: 'Position' }));
  for (const name of Object.keys(planes.position)) {
    const axis = planes.image.axis(name), extent = planes.shape[axis];
    if (axis === node.picture.channel || extent < 2) continue;
    const slider = make('input', { type: 'range', min: 0, max: extent - 1, step: 1, id: `at-${name}` });
    const entry = make('input', { type: 'number', min: 0, max: extent - 1, step: 1 });
    entry.setAttribute('aria-label', `${name}, in voxels`);
    for (const one of [slider, entry]) one.addEventListener('input', () => one.value !== '' && planes.move(name, Number(one.value) + 0.5));
    slider.dataset.axis = entry.dataset.axis = name;
    form.append(make('label', { className: 'line' }, name, slider, entry));
  }
  const count = planes.shape[node.picture.channel];
  if (node.picture.channels.length < count && !planes.image.isLabel) {
    const slider = make('input', { type: 'range', min: 0, max: count - 1, step: 1, value: 0, id: 'channel' });
    const shown = make('output', { textContent: '0' });
    slider.addEventListener('input', () => {
      planes.image.channel = Number(slider.value);
      shown.textContent = slider.value;
      planes.update();
    });
    form.append(make('label', { className: 'line', title: 'channel' }, 'c', slider, shown));
  }
  form.append(make('h3', { textContent: 'Layers' }));
  planes.layers.forEach((layer, i) => form.append(looks(layer, i)));
  placed();
}

function looks(layer, i) {
  const shown = make('input', { type: 'checkbox', checked: layer.on, id: `layer-${i}` });
  shown.addEventListener('change', () => { layer.on = shown.checked; planes.update(); });
  const head = make('div', { className: 'layer' }, shown, make('label', { htmlFor: shown.id, textContent: layer.isLabel ? `labels ${layer.label}` : layer.label, title: layer.label }));
  const box = make('fieldset', {}, head);
  layer.value = make('output');
  head.append(layer.value);
  if (layer.isLabel) {
    if (layer === planes.image) return box;
    const slider = make('input', { type: 'range', min: 0, max: 1, step: 0.05, value: layer.opacity });
    slider.setAttribute('aria-label', `Opacity of ${layer.label}`);
    slider.addEventListener('input', () => { layer.opacity = Number(slider.value); planes.update(); });
    box.append(make('label', { className: 'line' }, '◍', slider));
    return box;
  }
  const color = make('input', { type: 'color', value: `#${layer.color.toLowerCase()}` });
  color.setAttribute('aria-label', `Colour of ${layer.label}`);
  color.addEventListener('input', () => { layer.color = color.value.slice(1); soon(); });
  head.append(color);
  const [least, greatest] = layer.limits, span = greatest - least || 1;
  const whole = /int|bool/.test(node.dtype);
  [['low', 0], ['high', 1]].forEach(([text, end]) => {
    const step = whole ? 1 : span / 1000;
    const bounds = { min: Math.min(least, layer.window[0]), max: Math.max(greatest, layer.window[1]), step };
    const slider = make('input', { type: 'range', ...bounds, value: layer.window[end] });
    const entry = make('input', { type: 'number', step: whole ? 1 : 'any', value: number(layer.window[end]) });
    slider.setAttribute('aria-label', `${text} end of the contrast of ${layer.label}`);
    entry.setAttribute('aria-label', `${text} end of the contrast of ${layer.label}, number`);
    for (const one of [slider, entry]) one.addEventListener('input', () => {
      const value = Number(one.value);
      if (one.value === '' || !Number.isFinite(value) || value === layer.window[1 - end]) return;
      layer.window = layer.window.map((old, k) => (k === end ? value : old));
      (one === slider ? entry : slider).value = one === slider ? number(value) : value;
      soon();
    });
    box.append(make('label', { className: 'line' }, text === 'low' ? '◐' : '●', slider, entry));
  });
  return box;
}

let later = null;
/** Draws when a slider has rested for a moment: each contrast is other tiles. */
function soon() {
  clearTimeout(later);
  later = setTimeout(() => planes.update(), 80);
}

function busy(waiting) {
  $('planes').setAttribute('aria-busy', String(waiting));
}

/** Position, zoom or looks have changed. */
function placed() {
  for (const one of document.querySelectorAll('#controls [data-axis]')) {
    if (one !== document.activeElement || one.type === 'range') one.value = Math.floor(planes.position[one.dataset.axis]);
  }
  clearTimeout(readout);
  readout = setTimeout(() => { address(); values(); }, 120);
}

/** The values under the cross, of all layers by one request. */
async function values() {
  const boxes = planes.layers.map((layer) => {
    const { axes, space, channel, levels } = layer.picture;
    const start = axes.map((name, axis) => {
      if (axis === channel) return layer.channel ?? 0;
      const known = Object.keys(space).find((one) => space[one] === axis) ?? name;
      return planes.image.axis(known) === null ? 0 : Math.floor(layer.fromImage(planes.image, known, planes.position[known]) + 1e-6);
    });
    const inside = start.every((index, axis) => index >= 0 && index < levels[0].shape[axis]);
    return { layer, inside, box: { source: layer.node.source, path: layer.node.path, level: 0, start, shape: axes.map(() => 1) } };
  }).filter((one) => one.inside);
  if (!boxes.length) return;
  let reply;
  const turn = ++values.turn;
  try {
    reply = await ask('api/cutouts', { method: 'POST', body: JSON.stringify(boxes.map((one) => one.box)) });
  } catch (error) {
    // The plane there says what is wrong with it.
    for (const { layer } of boxes) Object.assign(layer.value, { textContent: '?', title: error.message });
    return;
  }
  if (turn !== values.turn) return; // it has moved on
  const told = JSON.parse(reply.headers.get('X-Voxfetch-Boxes')), view = new DataView(await reply.arrayBuffer());
  let i = 0;
  for (const { offset, dtype, count } of told) for (let k = 0; k < count; k++) boxes[i++].layer.value.textContent = voxel(view, offset + k * Number(dtype.slice(2)), dtype);
}

values.turn = 0;

function voxel(view, at, dtype) {
  const readers = {
    b1: 'getUint8', u1: 'getUint8', i1: 'getInt8', u2: 'getUint16', i2: 'getInt16', u4: 'getUint32', i4: 'getInt32',
    u8: 'getBigUint64', i8: 'getBigInt64', f4: 'getFloat32', f8: 'getFloat64', f2: 'getFloat16',
  };
  const reader = readers[dtype.slice(1)];
  if (!view[reader]) return '';
  const value = view[reader](at, true);
  return dtype[1] === 'f' ? number(value) : String(value);
}

// --- the address of what is to be seen

function address() {
  if (!node) return;
  const query = new URLSearchParams({ source: node.source });
  if (node.path) query.set('path', node.path);
  if (node.picture && planes.image?.node === node) {
    query.set('at', Object.entries(planes.position).map(([name, value]) => `${name}=${number(value)}`).join(','));
    query.set('zoom', number(planes.zoom));
    query.set('look', planes.layers.map((layer) => [Number(layer.on), ...(layer.isLabel ? [layer.opacity] : [...layer.window, layer.color])].join('_')).join(','));
  }
  history.replaceState(null, '', `#${query}`);
  const chosen = [key(node), ...[...overlaid].filter((one) => one !== key(node))];
  $('neuroglancer').href = `${base}api/state/neuroglancer?${new URLSearchParams({ source: chosen.map((one) => one.replaceAll('%', '%25').replaceAll(',', '%2C')).join(','), redirect: 1 })}`;
}

function restore(hash) {
  for (const part of (hash.get('at') ?? '').split(',')) {
    const [name, value] = part.split('=');
    if (Object.hasOwn(planes.position, name) && Number.isFinite(Number(value)) && value !== '') planes.position[name] = Math.max(0, Math.min(planes.shape[planes.image.axis(name)] - 1e-3, Number(value)));
  }
  const zoom = Number(hash.get('zoom'));
  if (zoom > 1e-5 && zoom <= 64) planes.zoom = zoom;
  (hash.get('look') ?? '').split(',').forEach((text, i) => {
    const [on, low, high, color] = text.split('_'), layer = planes.layers[i];
    if (!layer || !/^[01]$/.test(on)) return;
    layer.on = on === '1';
    if (layer.isLabel) {
      if (Number(low) >= 0 && Number(low) <= 1) layer.opacity = Number(low);
      return;
    }
    if (Number.isFinite(Number(low)) && Number.isFinite(Number(high)) && low !== high) layer.window = [Number(low), Number(high)];
    if (/^[0-9a-f]{6}$/i.test(color)) layer.color = color;
  });
}

async function start() {
  for (const button of document.querySelectorAll('[data-copies]')) button.addEventListener('click', () => copy($(button.dataset.copies).textContent, button));
  $('share').addEventListener('click', (event) => copy(location.href, event.currentTarget));
  $('controls').addEventListener('submit', (event) => event.preventDefault());
  const tree = (await (await ask('api/tree?depth=0')).json()).sources;
  $('tree').replaceChildren(...tree.map(row));
  if (tree.length === 1) $('tree').querySelector('.open')?.click();
  const hash = new URLSearchParams(location.hash.slice(1));
  const source = hash.get('source') ?? tree.find((one) => one.kind !== 'error')?.source ?? tree[0]?.source;
  if (source) await select(source, hash.get('path') ?? '', hash);
  else fail('There are no sources.');
}

addEventListener('hashchange', () => {
  const hash = new URLSearchParams(location.hash.slice(1));
  if (hash.get('source')) select(hash.get('source'), hash.get('path') ?? '', hash);
});
start().catch(fail);
