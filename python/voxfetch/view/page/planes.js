// Three planes of an image on canvases, without WebGL: tiles are PNGs of /img/, drawn to their physical aspect.
//
// Positions are in voxels of the finest level of the image, corners (voxel i covers i..i+1). A layer is one channel of
// the image or one label image; each has its own levels, and lies in the same world as the image.

const TILE = 512; // voxels along a side of a tile, and pixels at most
const MAX_TILES = 200; // kept, over all layers; those that are to be seen in any case
const UNITS = { nanometer: 'nm', micrometer: 'µm', millimeter: 'mm', centimeter: 'cm', meter: 'm', angstrom: 'Å', picometer: 'pm' };
const PATIENCE_MS = 250; // how long the last picture stays while tiles of the next are on their way

/** The address of a tile, and where it lies in voxels of its level. */
export class Layer {
  constructor(base, node, channel) {
    this.picture = node.picture;
    this.place = [node.source, ...(node.path ? node.path.split('/') : [])].map(encodeURIComponent).join('/');
    this.base = base;
    this.node = node;
    this.isLabel = node.picture.is_label;
    this.channel = channel;
    const look = this.isLabel ? {} : node.picture.channels[channel];
    this.on = this.isLabel || look.active;
    this.window = look.window;
    this.limits = look.limits;
    this.color = look.color;
    this.opacity = 0.5; // of labels, over an image
    this.label = this.isLabel ? node.name : look.label || node.name;
  }

  /** A position along an axis of the image (a name) -> along the same axis here, in finest voxels; null: no such axis. */
  axis(name) {
    const { space, axes } = this.picture;
    return space[name] ?? (axes.includes(name) ? axes.indexOf(name) : null);
  }

  fromImage(image, name, position) {
    const mine = this.axis(name), theirs = image.axis(name);
    if (this.picture === image.picture) return position;
    const a = image.picture, b = this.picture;
    const world = a.translation[theirs] + a.scale[theirs] * (position - 0.5);
    return (world - b.translation[mine]) / b.scale[mine] + 0.5;
  }
}

export class Planes {
  /** `changed` is called when position or zoom did; `busy` with true and false. */
  constructor(element, { changed, busy }) {
    this.element = element;
    this.changed = changed;
    this.busy = busy;
    this.tiles = new Map();
    this.views = [];
    this.layers = [];
    new ResizeObserver(() => this.draw()).observe(element);
  }

  /** Shows an image: `layers`, the first of which says what voxels and positions are. */
  show(layers) {
    for (const view of this.views) view.stop();
    this.tiles.clear();
    this.layers = layers;
    this.image = layers[0];
    const { space, axes, levels, scale, units } = this.image.picture;
    this.shape = levels[0].shape;
    this.names = Object.keys(space);
    this.axes = axes;
    // Physical size of a voxel relative to x; equal where units differ, for then nothing is known.
    const same = this.names.every((name) => units[space[name]] === units[space.x]);
    this.aspect = Object.fromEntries(this.names.map((n) => [n, same ? Math.abs(scale[space[n]] / scale[space.x]) || 1 : 1]));
    this.unit = same ? units[space.x] : null;
    this.voxel = Math.abs(scale[space.x]) || 1;
    this.position = {};
    for (const [i, name] of axes.entries()) this.position[this.nameOf(i) ?? name] = Object.values(space).includes(i) ? this.shape[i] / 2 : 0.5;
    const pairs = this.names.includes('z') && this.extent('z') > 1 ? [['x', 'y', 'z'], ['z', 'y', 'x'], ['x', 'z', 'y']] : [['x', 'y', this.names.includes('z') ? 'z' : null]];
    this.element.replaceChildren();
    this.element.classList.toggle('flat', pairs.length === 1);
    this.views = pairs.map((pair) => new View(this, ...pair));
    if (pairs.length > 1) this.element.append(document.getElementById('help').content.cloneNode(true));
    this.fit();
  }

  nameOf(axis) {
    return this.names.find((name) => this.image.picture.space[name] === axis);
  }

  extent(name) {
    return this.shape[this.image.axis(name)];
  }

  /** Zooms so that the whole image is to be seen. */
  fit() {
    const fits = this.views.map((view) => {
      const { width, height } = view.size();
      return Math.min(width / (this.extent(view.across) * this.aspect[view.across]), height / (this.extent(view.down) * this.aspect[view.down]));
    });
    this.zoom = Math.max(1e-6, Math.min(...fits) * 0.96);
  }

  /** Pixels per finest voxel along an axis. */
  pixels(name) {
    return this.zoom * this.aspect[name];
  }

  move(name, position) {
    this.position[name] = Math.max(0, Math.min(this.extent(name) - 1e-3, position));
    this.update();
  }

  magnify(factor) {
    this.zoom = Math.max(1e-5, Math.min(64, this.zoom * factor));
    this.update();
  }

  update() {
    this.changed();
    this.draw();
  }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = null;
      const waiting = this.views.map((view) => view.draw()).some(Boolean);
      this.busy(waiting);
      this.forget();
    });
  }

  /** Drops the tiles that were used least recently. */
  forget() {
    const wanted = new Set(this.views.flatMap((view) => view.wanted));
    for (const [key, tile] of this.tiles) {
      if (this.tiles.size <= MAX_TILES) break;
      if (wanted.has(key)) continue;
      tile.image?.close();
      this.tiles.delete(key);
    }
  }

  /** Tries failed tiles again. */
  retry() {
    for (const [key, tile] of this.tiles) if (tile.error) this.tiles.delete(key);
    this.draw();
  }
}

class View {
  constructor(planes, across, down, through) {
    Object.assign(this, { planes, across, down, through, wanted: [], loading: new Map() });
    this.element = document.createElement('div');
    this.element.className = 'plane';
    this.canvas = document.createElement('canvas');
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute('role', 'img');
    this.label = Object.assign(document.createElement('span'), { className: 'label' });
    this.scale = Object.assign(document.createElement('span'), { className: 'scale' });
    this.fault = Object.assign(document.createElement('p'), { className: 'fault', hidden: true });
    this.fault.setAttribute('role', 'alert');
    this.element.append(this.canvas, this.label, this.scale, this.fault);
    planes.element.append(this.element);
    this.listen();
  }

  size() {
    return { width: Math.max(1, this.element.clientWidth), height: Math.max(1, this.element.clientHeight) };
  }

  listen() {
    const { canvas, planes } = this;
    let from = null, moved = false;
    canvas.addEventListener('pointerdown', (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      from = [event.clientX, event.clientY];
      moved = false;
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!from) return;
      const [dx, dy] = [event.clientX - from[0], event.clientY - from[1]];
      if (!moved && Math.hypot(dx, dy) < 4) return;
      moved = true;
      from = [event.clientX, event.clientY];
      this.pan(-dx, -dy);
    });
    canvas.addEventListener('pointerup', (event) => {
      if (from && !moved) {
        const box = canvas.getBoundingClientRect();
        this.pan(event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
      }
      from = null;
    });
    canvas.addEventListener('pointercancel', () => { from = null; });
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) {
        const box = canvas.getBoundingClientRect();
        const factor = Math.exp(-Math.max(-300, Math.min(300, event.deltaY)) * 0.004);
        const keep = 1 - 1 / factor; // the point under the pointer stays where it is
        const dx = (event.clientX - box.left - box.width / 2) * keep, dy = (event.clientY - box.top - box.height / 2) * keep;
        this.pan(dx, dy);
        planes.magnify(factor);
      } else this.step(Math.sign(event.deltaY) * (event.shiftKey ? 10 : 1));
    }, { passive: false });
    canvas.addEventListener('keydown', (event) => {
      const { width, height } = this.size(), far = event.shiftKey ? 0.5 : 0.1;
      const actions = {
        ArrowLeft: () => this.pan(-far * width, 0), ArrowRight: () => this.pan(far * width, 0),
        ArrowUp: () => this.pan(0, -far * height), ArrowDown: () => this.pan(0, far * height),
        PageUp: () => this.step(-10), PageDown: () => this.step(10), ',': () => this.step(-1), '.': () => this.step(1),
        '+': () => planes.magnify(1.5), '=': () => planes.magnify(1.5), '-': () => planes.magnify(1 / 1.5),
        Home: () => { planes.fit(); planes.update(); },
      };
      if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      actions[event.key]();
    });
  }

  pan(dx, dy) {
    const { planes } = this;
    planes.move(this.across, planes.position[this.across] + dx / planes.pixels(this.across));
    planes.move(this.down, planes.position[this.down] + dy / planes.pixels(this.down));
  }

  step(count) {
    if (this.through) this.planes.move(this.through, Math.floor(this.planes.position[this.through]) + 0.5 + count);
  }

  /** The tiles of a layer that are to be seen, and at which level. */
  needed(layer) {
    const { planes } = this, { picture } = layer, image = planes.image;
    const [a, d] = [layer.axis(this.across), layer.axis(this.down)];
    if (a === null || d === null) return [];
    // Pixels per finest voxel of this layer.
    const stretch = (name, axis) => planes.pixels(name) * (layer === image ? 1 : picture.scale[axis] / image.picture.scale[image.axis(name)]);
    const [ka, kd] = [stretch(this.across, a), stretch(this.down, d)];
    let level = 0;
    picture.levels.forEach((one, i) => { if (Math.min(ka * one.factor[a], kd * one.factor[d]) <= 1.0001) level = i; });
    const { factor, offset, shape } = picture.levels[level];
    const to = (axis, position) => (position - offset[axis]) / factor[axis];
    const at = [];
    for (const [axis, name] of picture.axes.entries()) {
      if (axis === a || axis === d) continue;
      const known = Object.keys(picture.space).find((one) => picture.space[one] === axis) ?? name;
      let index = 0;
      if (axis === picture.channel) index = layer.channel ?? 0;
      else if (image.axis(known) !== null) index = Math.floor(to(axis, layer.fromImage(image, known, planes.position[known])) + 1e-6);
      if (index < 0 || index >= shape[axis]) return [];
      at.push(`${name}=${index}`);
    }
    const { width, height } = this.size();
    const side = { [a]: TILE, [d]: TILE };
    // Where there is no coarser level, a tile covers more voxels than it has pixels.
    for (const [axis, k] of [[a, ka], [d, kd]]) while (side[axis] < 8192 && side[axis] * factor[axis] * k < TILE / 2 && side[axis] < shape[axis]) side[axis] *= 2;
    const range = (name, axis, k, pixels) => {
      const centre = layer.fromImage(image, name, planes.position[name]);
      const [low, high] = [to(axis, centre - pixels / 2 / k), to(axis, centre + pixels / 2 / k)];
      const first = Math.max(0, Math.floor(low / side[axis])), last = Math.min(Math.ceil(shape[axis] / side[axis]), Math.ceil(high / side[axis]));
      return { first, last, centre, k };
    };
    const [xs, ys] = [range(this.across, a, ka, width), range(this.down, d, kd, height)];
    const tiles = [];
    for (let j = ys.first; j < ys.last; j++) for (let i = xs.first; i < xs.last; i++) {
      const x = [i * side[a], Math.min((i + 1) * side[a], shape[a])], y = [j * side[d], Math.min((j + 1) * side[d], shape[d])];
      const pixel = (span, axis, { centre, k }, pixels) => span.map((p) => (p * factor[axis] + offset[axis] - centre) * k + pixels / 2);
      tiles.push({
        url: this.address(layer, level, at, a, d, x, y),
        x: pixel(x, a, xs, width), y: pixel(y, d, ys, height), smooth: !layer.isLabel && ka * factor[a] < 1,
      });
    }
    return tiles;
  }

  address(layer, level, at, a, d, x, y) {
    const { axes } = layer.picture;
    const query = new URLSearchParams({ axes: `${axes[d]},${axes[a]}`, level, box: `${y[0]}:${y[1]},${x[0]}:${x[1]}`, size: TILE });
    if (at.length) query.set('at', at.join(','));
    if (!layer.isLabel) {
      query.set('color', layer.color);
      query.set('window', layer.window.join(','));
    }
    return `${layer.base}img/${layer.place}/slice.png?${query}`;
  }

  load(url) {
    const { tiles } = this.planes;
    const stop = new AbortController();
    this.loading.set(url, stop);
    picture(url, stop.signal).then((image) => tiles.set(url, { image }), (error) => {
      if (!stop.signal.aborted) tiles.set(url, { error: String(error.message ?? error) });
    }).finally(() => {
      this.loading.delete(url);
      this.planes.draw();
    });
  }

  stop() {
    for (const one of this.loading.values()) one.abort();
  }

  /** Draws what is there and asks for what is not; returns whether something is still on its way. */
  draw() {
    const { planes, canvas } = this, { width, height } = this.size();
    const layers = planes.layers.filter((layer) => layer.on).map((layer) => ({ layer, tiles: this.needed(layer) }));
    const wanted = layers.flatMap(({ tiles }) => tiles.map((tile) => tile.url));
    this.wanted = wanted;
    const missing = wanted.filter((url) => !planes.tiles.has(url));
    for (const [url, one] of this.loading) if (!missing.includes(url)) one.abort();
    for (const url of missing) if (!this.loading.has(url)) this.load(url);
    const faults = wanted.map((url) => planes.tiles.get(url)?.error).filter(Boolean);
    this.fault.hidden = !faults.length;
    if (faults.length) this.tell(faults[0]);
    const now = performance.now();
    const what = `${width} ${height} ${planes.zoom} ${JSON.stringify(planes.position)} ${wanted}`;
    if (what !== this.what) Object.assign(this, { what, since: now });
    // The last picture stays for a moment, so that moving through does not flicker.
    if (missing.length && this.drawn && now - this.since < PATIENCE_MS) {
      setTimeout(() => planes.draw(), PATIENCE_MS);
      return true;
    }
    this.drawn = true;
    const ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext('2d');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.globalCompositeOperation = 'source-over';
    context.globalAlpha = 1;
    context.fillStyle = '#000';
    context.fillRect(0, 0, width, height);
    for (const { layer, tiles } of layers) {
      context.globalCompositeOperation = layer.isLabel ? 'source-over' : 'lighter';
      context.globalAlpha = layer.isLabel && planes.image !== layer ? layer.opacity : 1;
      for (const { url, x, y, smooth } of tiles) {
        const tile = planes.tiles.get(url);
        if (!tile?.image) continue;
        planes.tiles.delete(url); // the one used last goes to the end
        planes.tiles.set(url, tile);
        // Edges on whole pixels, so that tiles meet.
        const [left, top, right, bottom] = [x[0], y[0], x[1], y[1]].map((edge) => Math.round(edge * ratio) / ratio);
        context.imageSmoothingEnabled = smooth;
        context.drawImage(tile.image, left, top, Math.max(right - left, 1 / ratio), Math.max(bottom - top, 1 / ratio));
      }
    }
    this.decorate(context, width, height);
    return missing.length > 0;
  }

  decorate(context, width, height) {
    const { planes } = this, line = (x0, y0, x1, y1) => { context.moveTo(x0, y0); context.lineTo(x1, y1); };
    const [x, y] = [Math.floor(width / 2) + 0.5, Math.floor(height / 2) + 0.5];
    context.globalCompositeOperation = 'source-over';
    context.globalAlpha = 0.75;
    context.strokeStyle = '#ffd54a';
    context.lineWidth = 1;
    context.beginPath();
    line(0, y, x - 12, y); line(x + 12, y, width, y); line(x, 0, x, y - 12); line(x, y + 12, x, height);
    context.stroke();
    const place = this.through ? `, ${this.through} = ${Math.floor(planes.position[this.through])}` : '';
    this.label.textContent = `${this.across}${this.down}${place}`;
    this.canvas.setAttribute('aria-label', `Plane ${this.across}${this.down}${place}; arrows move, page keys go through it, plus and minus zoom`);
    const per = planes.pixels(this.across) / (planes.aspect[this.across] * planes.voxel); // pixels per unit
    const aim = 100 / per, power = 10 ** Math.floor(Math.log10(aim)), nice = [5, 2, 1].find((n) => n * power <= aim) * power;
    this.scale.style.width = `${nice * per}px`;
    const micro = planes.unit === 'nanometer' && nice >= 1000;
    this.scale.textContent = micro ? `${Number((nice / 1000).toPrecision(3))} µm` : `${Number(nice.toPrecision(3))} ${UNITS[planes.unit] ?? planes.unit ?? (planes.voxel === 1 ? 'voxels' : '')}`;
  }

  tell(text) {
    const again = Object.assign(document.createElement('button'), { type: 'button', textContent: 'Try again' });
    again.addEventListener('click', () => this.planes.retry());
    this.fault.replaceChildren(`This plane is not complete: ${text} `, again);
  }
}

async function picture(url, signal) {
  const reply = await fetch(url, { signal });
  if (!reply.ok) throw new Error(await problem(reply));
  return createImageBitmap(await reply.blob());
}

/** What a reply that is no success says, for people. */
export async function problem(reply) {
  let said = '';
  try {
    const found = await reply.json();
    said = [found.error, found.message].filter(Boolean).join(': ');
  } catch { /* no JSON */ }
  return `${said || reply.statusText || 'the server said no'} (${reply.status})`;
}
