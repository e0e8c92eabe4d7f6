// What the messages carry: shares, commitments, declarations, masks, transcripts, statements, the masking graph.

import * as p from './primitives.mjs';
import { allBits, MEMBER, packBits, packed, PARTICIPANT, SEALED, unpackBits } from './messages.mjs';

// ---------------------------------------------------------------------------------------------- secret sharing

export const PRIME = 2n ** 256n + 297n;

const mod = (number, modulus = PRIME) => ((number % modulus) + modulus) % modulus;

/** By Euclid's algorithm. */
function inverse(number) {
  let [above, below, first, second] = [PRIME, mod(number), 0n, 1n];
  while (below) {
    const times = above / below;
    [above, below, first, second] = [below, above - times * below, second, first - times * second];
  }
  return first;
}

export function element(share) {
  const number = p.fromBigEndian(share);
  if (share.length !== 33 || number >= PRIME) throw new p.Mismatch('no field element');
  return number;
}

export function split(secret, threshold, points, entropy) {
  if (secret.length !== 32 || threshold < 1 || threshold > points.length) throw new p.Mismatch('cannot be split');
  if (new Set(points).size !== points.length || points.includes(0)) throw new p.Mismatch('points not distinct');
  const drawn = Array.from({ length: threshold - 1 }, (_, k) => p.fromBigEndian(entropy.subarray(48 * k, 48 * k + 48)));
  const constant = p.fromBigEndian(secret);
  return points.map((x) => p.bigEndian([...drawn, constant].reduce((sum, a) => mod(sum * BigInt(x) + a), 0n), 33));
}

export function rebuild(shares) {
  const known = shares.map(({ point, share }) => [BigInt(point), element(share)]);
  const terms = known.map(([x, y]) => {
    const others = known.filter(([other]) => other !== x);
    const above = others.reduce((product, [other]) => mod(product * other), 1n);
    const below = others.reduce((product, [other]) => mod(product * (other - x)), 1n);
    return y * above * inverse(below);
  });
  const constant = mod(terms.reduce((sum, term) => sum + term, 0n));
  if (constant >= 2n ** 256n) throw new p.Mismatch('no secret');
  return p.bigEndian(constant, 32);
}

export const id = (client) => p.bigEndian(client);

export function shareCommitment(salt, dealer, holder, share) {
  return p.digest('secagg share', salt, id(dealer), id(holder), share);
}

export const seedCommitment = (h1, owner, seed) => p.digest('secagg seed', h1, id(owner), seed);

/** Both shares with their salts, from a box as JSON holds it. */
export function openShares(sealed, agreed, h1) {
  const { dealer, holder } = sealed;
  const plaintext = p.unseal(agreed, p.unhex(sealed.box), [h1, id(dealer), id(holder)]);
  return [sealed.self_seed_commitment, sealed.masking_key_commitment].map((commitment, half) => {
    const part = plaintext.subarray(49 * half, 49 * half + 49);
    const [share, salt] = [part.subarray(0, 33), part.subarray(33)];
    p.same(shareCommitment(salt, dealer, holder, share), p.unhex(commitment), 'commitment');
    element(share);
    return { share, salt };
  });
}

// ------------------------------------------------------------------------------------------------ declarations

const sizeOf = (tensor) => tensor.shape.reduce((product, size) => product * size, 1);
const layerOf = ({ name, layer }) => layer || (name.includes('.') && name.slice(0, name.lastIndexOf('.'))) || name;
export const layoutSize = (layout) => layout.tensors.reduce((sum, tensor) => sum + sizeOf(tensor), 0);

/** Layer and units of each coordinate. */
function* coordinates(layout) {
  for (const tensor of layout.tensors) {
    const { shape, unit_axes: axes } = tensor;
    for (let flat = 0; flat < sizeOf({ shape }); flat += 1) {
      const index = [];
      for (let rest = flat, axis = shape.length - 1; axis >= 0; rest = Math.floor(rest / shape[axis]), axis -= 1) {
        index[axis] = rest % shape[axis];
      }
      const units = Object.entries(axes).map(([axis, units]) => units[index[axis]]);
      yield [layerOf(tensor), units.filter((unit) => unit >= 0)];
    }
  }
}

export function expand(layout, kind, data) {
  const all = [...coordinates(layout)];
  const layers = [...new Set(all.map(([layer]) => layer))];
  const units = layout.unit_groups.reduce((sum, [, size]) => sum + size, 0);
  const bitsOf = (values) => values.map((held) => (held ? '1' : '0')).join('');
  switch (kind) {
    case 'full':
      unpackBits(data, 0);
      return '1'.repeat(all.length);
    case 'layers': {
      const held = unpackBits(data, layers.length);
      return bitsOf(all.map(([layer]) => held[layers.indexOf(layer)] === '1'));
    }
    case 'units': {
      const held = unpackBits(data, units);
      return bitsOf(all.map(([, of]) => of.every((unit) => held[unit] === '1')));
    }
    case 'bitmap': {
      const held = unpackBits(data, all.length);
      if (eliasFano(held).length < data.length) throw new p.Mismatch('the sparse coding is shorter');
      return held;
    }
    case 'sparse': {
      const held = readEliasFano(data, all.length);
      const canonical = eliasFano(held).equals(data) && data.length < Math.ceil(all.length / 8);
      if (!canonical) throw new p.Mismatch('not canonical');
      return held;
    }
  }
}

const lowBits = (size, count) => (count ? Math.floor(Math.log2(Math.floor(size / count))) : 0);

function eliasFano(held) {
  const ones = held.split('1').length - 1;
  const rare = 2 * ones <= held.length ? '1' : '0';
  const positions = [...held].flatMap((bit, place) => (bit === rare ? [place] : []));
  const low = lowBits(held.length, positions.length);
  let [high, lows, reached] = ['', '', 0];
  for (const position of positions) {
    high += '0'.repeat((position >> low) - reached) + '1';
    reached = position >> low;
    for (let bit = 0; bit < low; bit += 1) lows += (position >> bit) & 1;
  }
  const start = p.bigEndian((rare === '1' ? 1n << 63n : 0n) | BigInt(positions.length));
  return Buffer.concat([start, packBits(high), packBits(lows)]);
}

function readEliasFano(data, size) {
  if (data.length < 8) throw new p.Mismatch('no head');
  const start = p.fromBigEndian(data.subarray(0, 8));
  const rare = start >> 63n ? '1' : '0';
  const count = Number(start & (2n ** 63n - 1n));
  if (count > size) throw new p.Mismatch('too many positions');
  const low = lowBits(size, count);
  const lowStart = data.length - Math.ceil((count * low) / 8);
  if (lowStart < 8) throw new p.Mismatch('too short');
  const highs = [...allBits(data.subarray(8, lowStart))].flatMap((bit, place) => (bit === '1' ? [place] : []));
  const lows = allBits(data.subarray(lowStart));
  if (highs.length !== count) throw new p.Mismatch('another number of positions');
  const held = Array(size).fill(rare === '1' ? '0' : '1');
  highs.forEach((place, k) => {
    const plain = [...lows.slice(k * low, k * low + low)].reverse().join('');
    const position = ((place - k) << low) + (low ? parseInt(plain, 2) : 0);
    if (position >= size) throw new p.Mismatch('outside the layout');
    held[position] = rare;
  });
  return held.join('');
}

// ------------------------------------------------------------------------------------------------------- masks

export const WORD_BYTES = { 16: 2, 24: 4, 32: 4, 64: 8 };

export const ringBits = (largest) => [16, 24, 32, 64].find((bits) => BigInt(largest) < 2n ** BigInt(bits - 1));

export function elements(key, bits, count) {
  const size = WORD_BYTES[bits];
  const data = p.keystream(key, count * size, 1n);
  return Array.from({ length: count }, (_, k) => p.fromLittleEndian(data.subarray(k * size, k * size + size)));
}

export function checkMasks(key) {
  const start = p.keystream(key, 16);
  return [p.fromLittleEndian(start.subarray(0, 8)), p.fromLittleEndian(start.subarray(8))];
}

export const packVector = (bits, values) => Buffer.concat(values.map((value) => p.littleEndian(value, bits / 8)));

export function unpackVector(bits, data) {
  const size = bits / 8;
  const starts = Array.from({ length: data.length / size }, (_, k) => k * size);
  return starts.map((start) => p.fromLittleEndian(data.subarray(start, start + size)));
}

export const selfKey = (seed, h2) => p.derive(seed, 'self mask', [h2]);

export function pairwiseKey(agreed, h2, one, other) {
  const ids = [BigInt(one), BigInt(other)].sort((a, b) => (a < b ? -1 : 1));
  return p.derive(agreed, 'pairwise mask', [h2, ...ids.map(id)]);
}

export const pairwiseSign = (client, peer) => (BigInt(client) < BigInt(peer) ? 1n : -1n);

export const filled = (places) => [...places].flatMap((bit, place) => (bit === '1' ? [place] : []));

export function checksums(h2, places, values) {
  return [0, 1].map((k) => {
    const drawn = elements(p.derive(h2, 'checksum', [Buffer.from([k])]), 32, places.length);
    const terms = filled(places).map((place, index) => drawn[place] * values[index]);
    return BigInt.asUintN(64, terms.reduce((sum, term) => sum + term, 0n));
  });
}

/** Adds a stream to the places that two bit strings share; ``vector`` is indexed by place. */
export function apply(vector, checks, sign, key, bits, own, theirs) {
  const common = filled(own).filter((place) => theirs[place] === '1');
  elements(key, bits, common.length).forEach((drawn, k) => (vector[common[k]] += sign * drawn));
  checkMasks(key).forEach((mask, k) => (checks[k] = BigInt.asUintN(64, checks[k] + sign * mask)));
}

// ------------------------------------------------------------------------------------------- transcripts, graph

export function sessionDigests(session) {
  const params = p.sha256(p.text('secagg params'), p.text(session.params_text));
  const layout = p.sha256(p.text('secagg layout'), p.text(session.layout_text));
  const counted = session.counted ? countedDigest(session.counted) : Buffer.alloc(0);
  const rest = [p.text(session.mode), Buffer.from([session.weighted ? 1 : 0]), counted, p.unhex(session.model_root)];
  return { params, layout, counted, session: p.sha256(p.joined(p.unhex(session.id), params, layout, ...rest)) };
}

function countedDigest({ clients, least }) {
  const counts = least.map((count) => p.littleEndian(BigInt(count), 4));
  const ids = [...clients].sort((a, b) => a - b).join(', ');
  return p.sha256(p.text(`[${ids}]`), ...counts);
}

export function merkleRoot(leaves) {
  if (leaves.length === 1) return p.sha256(Buffer.from([0]), leaves[0]);
  const middle = 2 ** (Math.ceil(Math.log2(leaves.length)) - 1);
  const halves = [leaves.slice(0, middle), leaves.slice(middle)];
  return p.sha256(Buffer.from([1]), ...halves.map(merkleRoot));
}

const each = (type, parts) => parts.map((part) => packed(type, part));

export const graphSeed = (session, members) => p.digest('secagg graph', session, ...each(MEMBER, members));

export function firstHash(session, members, degree, threshold) {
  return p.digest('secagg h1', p.text(`1 ${degree} ${threshold}`), session, ...each(MEMBER, members));
}

export const secondHash = (h1, participants) => p.digest('secagg h2', h1, ...each(PARTICIPANT, participants));

export const says = {
  keys: (session, member) => p.digest('secagg signs keys', session, packed(MEMBER, member)),
  h1: (h1, participant) => p.digest('secagg signs h1', h1, packed(PARTICIPANT, participant)),
  shares: (h1, sealed) => p.digest('secagg signs shares', h1, packed(SEALED, { ...sealed, signature: null })),
  h2: (h2, client) => p.digest('secagg signs h2', h2, id(client)),
  survivors: (h2, survivors, client) => p.digest('secagg signs survivors', h2, survivors, id(client)),
};

const byNumber = (a, b) => (BigInt(a) < BigInt(b) ? -1 : 1);

export function ringOrder(clients, degree, seed) {
  const ascending = [...clients].sort(byNumber);
  if (degree >= clients.length - 1) return ascending;
  const drawn = p.hex(p.seeded(Buffer.concat([p.text('graph'), seed]), 32 * clients.length));
  const keys = new Map(ascending.map((client, k) => [client, drawn.slice(64 * k, 64 * k + 64)]));
  return ascending.sort((a, b) => (keys.get(a) < keys.get(b) ? -1 : 1));
}

export function neighbours(order, degree, client) {
  const place = order.indexOf(client);
  if (degree >= order.length - 1) return order.filter((one) => one !== client).sort(byNumber);
  const steps = Array.from({ length: degree / 2 }, (_, k) => [k + 1, order.length - k - 1]).flat();
  return steps.map((step) => order[(place + step) % order.length]).sort(byNumber);
}

// ---------------------------------------------------------------------------------------- encoding and release

export function roundToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  return BigInt(rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1);
}

export const magnitude = (params) => Math.floor((params.levels - 1) / 2);

export function encodeValue(value, limit, bound, saturate) {
  return roundToEven((saturate ? Math.min(Math.max(value, -limit), limit) : value) * (bound / limit));
}

export const encodeWeight = (params, weight) => roundToEven((weight / params.max_weight) * magnitude(params));
export const bucketOf = (params, weight) => roundToEven(-2 * Math.log2(weight / params.max_weight));

export function bucketWeight(params, bucket) {
  const rounded = roundToEven(2 ** (-Number(bucket) / 2) * magnitude(params));
  return rounded || 1n;
}

/** What a session releases and who fills which places; ``held``: client to the coordinates that it declared. */
export class Release {
  constructor(session, needed, held) {
    const { params } = session;
    const [clients, floor] = [held.size, params.min_cohort + params.corrupt];
    const most = params.max_dropouts ?? Math.floor(clients / 3);
    const dropouts = Math.max(0, Math.min(most, clients - Math.max(floor, needed)));
    const required = Math.max(floor + dropouts, Math.ceil(params.participation * clients - 1e-9));
    const holders = (_, c) => [...held.values()].filter((of) => of[c] === '1').length;
    const columns = Array.from({ length: layoutSize(session.layout) }, holders);
    const gone = (session.counted?.clients ?? []).filter((client) => !held.has(client)).length;
    const coverage = session.counted ? session.counted.least.map((least) => Math.max(least - gone, 0)) : columns;
    this.session = session;
    this.released = coverage.flatMap((count, c) => (count >= required ? [c] : []));
    this.bits = ringBits(clients * magnitude(params));
    this.held = new Map([...held].map(([client, of]) => [client, this.released.map((c) => of[c]).join('')]));
    this.groups = [...new Set([...this.held.keys()].sort(byNumber).map((client) => this.held.get(client)))];
    const hidden = session.weighted && params.weighting !== 'public';
    const single = session.mode === 'uniform' || params.weighting === 'average';
    this.slots = params.exact_denominators ? 'coordinates' : !hidden ? 'none' : single ? 'total' : 'groups';
  }

  places(client) {
    const held = this.held.get(client);
    const groups = this.groups.map((group) => (group === held ? '1' : '0')).join('');
    return held + { none: '', total: '1', groups, coordinates: '1'.repeat(held.length + 1) }[this.slots];
  }

  integers(client, { update, held: own }, weight) {
    const { params, layout } = this.session;
    const ranges = params.value_range;
    const limits = layout.tensors.flatMap((tensor) => {
      const limit = typeof ranges === 'number' ? ranges : ranges[tensor.name] ?? ranges['*'];
      return Array(sizeOf(tensor)).fill(limit);
    });
    const values = Object.values(update).flat();
    const bound = Number(weight ?? magnitude(params));
    const held = filled(this.held.get(client)).map((place) => this.released[place]);
    const value = (c) => (own[c] === '1' ? values[c] : 0);
    const brought = held.map((c) => encodeValue(value(c), limits[c], bound, params.out_of_range === 'saturate'));
    const one = weight ?? 1n;
    const exact = this.released.map((c) => (own[c] === '1' ? one : 0n));
    return [...brought, ...{ none: [], total: [one], groups: [one], coordinates: [...exact, one] }[this.slots]];
  }
}
