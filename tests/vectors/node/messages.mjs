// The messages of a session: what is in each, a small MessagePack, and strict decoding.

import { bigEndian, fromBigEndian, hex, Mismatch, text, unhex } from './primitives.mjs';

const bytes = (least, most = least) => ({ kind: 'bytes', least, most });
const integer = (most) => ({ kind: 'integer', most });
const word = (...words) => ({ kind: 'text', words });
const list = (of) => ({ kind: 'list', of });
const part = (fields) => ({ kind: 'part', fields });
const optional = (of) => ({ kind: 'optional', of });

const ID = integer(2n ** 63n - 1n);
const KEY = bytes(32);
const SIGNATURE = bytes(64);
const BUCKET = optional(integer(127n));
const ANY = bytes(0, 2 ** 32 - 1);
const DECLARATION = part({
  kind: word('full', 'layers', 'units', 'bitmap', 'sparse'),
  data: ANY,
  provenance: word('public', 'device', 'data'),
});
export const MEMBER = part({ id: ID, masking_key: KEY, transport_key: KEY });
export const PARTICIPANT = part({ id: ID, declaration: DECLARATION, weight_bucket: BUCKET });
export const SEALED = part({
  dealer: ID,
  holder: ID,
  box: bytes(114),
  self_seed_commitment: KEY,
  masking_key_commitment: KEY,
  signature: optional(SIGNATURE),
});
const SIGNED = { signature: optional(SIGNATURE) };

const MESSAGES = {
  AdvertiseKeys: { sender: ID, masking_key: KEY, transport_key: KEY, ...SIGNED },
  Roster: { members: list(MEMBER), signatures: list(SIGNATURE) },
  ShareKeys: {
    sender: ID,
    params: KEY,
    layout: KEY,
    transcript: KEY,
    declaration: DECLARATION,
    weight_bucket: BUCKET,
    seed_commitment: KEY,
    shares: list(SEALED),
    ...SIGNED,
  },
  RelayedShares: { participants: list(PARTICIPANT), shares: list(SEALED), signatures: list(SIGNATURE) },
  MaskedInput: { sender: ID, check: bytes(16), vector: ANY, ...SIGNED },
  ConsistencyRequest: { survivors: ANY, signatures: list(SIGNATURE) },
  ConsistencyCheck: { sender: ID, signature: SIGNATURE },
  UnmaskRequest: { survivors: ANY, quorum: list(part({ id: ID, signature: SIGNATURE })) },
  Unmask: { sender: ID, shares: list(part({ dealer: ID, share: bytes(33), salt: bytes(16) })) },
};

const messageType = (tag) => part({ tag: word(tag), session: bytes(16), ...MESSAGES[tag] });

/** A message or a part of one, given as the JSON files hold it: bytes as hexadecimal, large integers as text. */
export function packed(type, value) {
  switch (type.kind) {
    case 'optional':
      return value === null ? unhex('c0') : packed(type.of, value);
    case 'bytes':
      return Buffer.concat([head([0xc4, 0xc5, 0xc6], [1, 2, 4], value.length / 2), unhex(value)]);
    case 'text':
      return Buffer.concat([Buffer.from([0xa0 | value.length]), text(value)]);
    case 'integer':
      return value < 128 ? Buffer.from([Number(value)]) : head([0xcc, 0xcd, 0xce, 0xcf], [1, 2, 4, 8], value);
    case 'list':
      return Buffer.concat([arrayHead(value.length), ...value.map((one) => packed(type.of, one))]);
    case 'part': {
      const fields = Object.entries(type.fields);
      return Buffer.concat([arrayHead(fields.length), ...fields.map(([name, of]) => packed(of, value[name]))]);
    }
  }
}

function head(tags, sizes, number) {
  const place = sizes.findIndex((size) => BigInt(number) < 1n << BigInt(8 * size));
  return Buffer.concat([Buffer.from([tags[place]]), bigEndian(number, sizes[place])]);
}

function arrayHead(length) {
  return length < 16 ? Buffer.from([0x90 | length]) : Buffer.concat([Buffer.from([0xdc]), bigEndian(length, 2)]);
}

export function encode(tag, fields) {
  return Buffer.concat([Buffer.from([1]), packed(messageType(tag), { tag, ...fields })]);
}

/** Tag and fields of a message. Reading is strict in types and lengths; the comparison at the end in spelling. */
export function decode(data) {
  if (data[0] !== 1) throw new Mismatch('another version');
  const tag = new Reader(data.subarray(2)).text();
  if (!Object.hasOwn(MESSAGES, tag)) throw new Mismatch(`unknown tag ${tag}`);
  const { tag: _, ...fields } = new Reader(data.subarray(1)).read(messageType(tag));
  if (!encode(tag, fields).equals(data)) throw new Mismatch('not in canonical form');
  if (tag === 'Unmask' && !ascending(fields.shares.map(({ dealer }) => BigInt(dealer)))) {
    throw new Mismatch('dealers are not listed once each in ascending order');
  }
  return { tag, fields };
}

const ascending = (numbers) => numbers.every((number, place) => place === 0 || numbers[place - 1] < number);

class Reader {
  constructor(data) {
    this.left = data;
  }

  take(count) {
    if (this.left.length < count) throw new Mismatch('cut short');
    const taken = this.left.subarray(0, count);
    this.left = this.left.subarray(count);
    return taken;
  }

  number(count) {
    return Number(fromBigEndian(this.take(count)));
  }

  read(type) {
    switch (type.kind) {
      case 'optional':
        return this.left[0] === 0xc0 ? (this.take(1), null) : this.read(type.of);
      case 'bytes':
        return this.bytes(type);
      case 'text': {
        const found = this.text();
        if (!type.words.includes(found)) throw new Mismatch(`unknown word ${found}`);
        return found;
      }
      case 'integer':
        return this.integer(type);
      case 'list':
        return Array.from({ length: this.length() }, () => this.read(type.of));
      case 'part': {
        const fields = Object.entries(type.fields);
        if (this.length() !== fields.length) throw new Mismatch('another number of fields');
        return Object.fromEntries(fields.map(([name, of]) => [name, this.read(of)]));
      }
    }
  }

  text() {
    const [tag] = this.take(1);
    if (tag >> 5 !== 5) throw new Mismatch('no short text');
    return this.take(tag & 31).toString('utf8');
  }

  bytes({ least, most }) {
    const size = { 0xc4: 1, 0xc5: 2, 0xc6: 4 }[this.take(1)[0]];
    if (size === undefined) throw new Mismatch('no bytes');
    const found = this.take(this.number(size));
    if (found.length < least || found.length > most) throw new Mismatch('bytes of another length');
    return hex(found);
  }

  integer({ most }) {
    const [tag] = this.take(1);
    const size = { 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8 }[tag];
    if (tag >= 128 && size === undefined) throw new Mismatch('no unsigned integer');
    const found = tag < 128 ? BigInt(tag) : fromBigEndian(this.take(size));
    if (found > most) throw new Mismatch('an integer out of range');
    return found < 2n ** 53n ? Number(found) : String(found);
  }

  length() {
    const [tag] = this.take(1);
    if (tag >> 4 === 9) return tag & 15;
    if (tag !== 0xdc) throw new Mismatch('no array');
    return this.number(2);
  }
}

/** A bitmap over clients, and back. */
export function writeBitmap(chosen, clients) {
  const bits = clients.map((client) => (chosen.map(String).includes(String(client)) ? '1' : '0')).join('');
  return packBits(bits);
}

export function readBitmap(data, clients) {
  const bits = unpackBits(data, clients.length);
  return clients.filter((_, place) => bits[place] === '1');
}

export function packBits(bits) {
  const groups = bits.match(/.{1,8}/g) ?? [];
  return Buffer.from(groups.map((group) => parseInt(group.padEnd(8, '0'), 2)));
}

export const allBits = (data) => [...data].map((byte) => byte.toString(2).padStart(8, '0')).join('');

export function unpackBits(data, count) {
  const bits = allBits(data);
  if (data.length !== Math.ceil(count / 8) || bits.slice(count).includes('1')) throw new Mismatch('bits do not fit');
  return bits.slice(0, count);
}
