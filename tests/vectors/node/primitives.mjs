// Hashes, key derivation, streams, agreements, signatures and boxes, from Node's own crypto module alone.

import crypto from 'node:crypto';

export const unhex = (text) => Buffer.from(text, 'hex');
export const hex = (bytes) => Buffer.from(bytes).toString('hex');
export const text = (string) => Buffer.from(string, 'utf8');

export class Mismatch extends Error {}

/** Refuses two values that differ; buffers are compared as hexadecimal, anything else as JSON. */
export function same(actual, expected, what) {
  const shown = (value) => (Buffer.isBuffer(value) ? hex(value) : JSON.stringify(value, bigAsText));
  if (shown(actual) !== shown(expected)) throw new Mismatch(`${what}: ${shown(actual)} is not ${shown(expected)}`);
}

const bigAsText = (_, value) => (typeof value === 'bigint' ? String(value) : value);

/** Refuses an action that does not raise. */
export function refused(action, what) {
  try {
    action();
  } catch (error) {
    if (error instanceof TypeError || error instanceof ReferenceError) throw error;
    return;
  }
  throw new Mismatch(`${what}: not refused`);
}

export function bigEndian(number, length = 8) {
  return unhex(BigInt(number).toString(16).padStart(2 * length, '0'));
}

export function littleEndian(number, length) {
  return bigEndian(BigInt.asUintN(8 * length, number), length).reverse();
}

export const fromBigEndian = (bytes) => (bytes.length ? BigInt('0x' + hex(bytes)) : 0n);
export const fromLittleEndian = (bytes) => fromBigEndian(Buffer.from(bytes).reverse());

export const sha256 = (...parts) => crypto.createHash('sha256').update(Buffer.concat(parts)).digest();
export const joined = (...parts) => Buffer.concat(parts.flatMap((part) => [bigEndian(part.length), part]));
export const digest = (tag, ...parts) => sha256(joined(text(tag), ...parts));

export function hkdf(secret, salt, info, length) {
  return Buffer.from(crypto.hkdfSync('sha256', secret, salt, info, length));
}

export function derive(secret, purpose, binders, length = 16) {
  return hkdf(secret, Buffer.alloc(0), joined(text('secagg 1'), text(purpose), ...binders), length);
}

export function counterMode(key, firstBlock, plaintext) {
  return crypto.createCipheriv('aes-128-ctr', key, bigEndian(firstBlock, 16)).update(plaintext);
}

export const keystream = (key, count, firstBlock = 0n) => counterMode(key, firstBlock, Buffer.alloc(count));

export function seeded(seed, count) {
  return keystream(sha256(text('secagg entropy'), seed).subarray(0, 16), count);
}

const PREFIX = {
  x25519: ['302e020100300506032b656e04220420', '302a300506032b656e032100'],
  ed25519: ['302e020100300506032b657004220420', '302a300506032b6570032100'],
};

const keys = new Map();

/** A key object from raw bytes, made once: that is slow. */
function keyFrom(make, type, prefix, raw) {
  const der = Buffer.concat([unhex(prefix), raw]);
  if (!keys.has(hex(der))) keys.set(hex(der), make({ key: der, format: 'der', type }));
  return keys.get(hex(der));
}

const privateKey = (curve, seed) => keyFrom(crypto.createPrivateKey, 'pkcs8', PREFIX[curve][0], seed);
const publicKey = (curve, raw) => keyFrom(crypto.createPublicKey, 'spki', PREFIX[curve][1], raw);

export function publicOf(curve, seed) {
  return crypto.createPublicKey(privateKey(curve, seed)).export({ format: 'der', type: 'spki' }).subarray(-32);
}

export function agree(seed, peer) {
  return crypto.diffieHellman({ privateKey: privateKey('x25519', seed), publicKey: publicKey('x25519', peer) });
}

export const sign = (seed, statement) => crypto.sign(null, statement, privateKey('ed25519', seed));

export function verify(raw, statement, signature) {
  if (!crypto.verify(null, statement, publicKey('ed25519', raw), signature)) throw new Mismatch('a signature is wrong');
}

export function openBox(key, nonce, associated, box) {
  const cipher = crypto.createDecipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
  cipher.setAAD(associated, { plaintextLength: box.length - 16 });
  cipher.setAuthTag(box.subarray(-16));
  return Buffer.concat([cipher.update(box.subarray(0, -16)), cipher.final()]);
}

export function unseal(secret, box, context) {
  return openBox(derive(secret, 'seal', context, 32), Buffer.alloc(12), Buffer.concat(context), box);
}
