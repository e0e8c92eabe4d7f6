// Holds the vectors to an implementation in another language:
// `node tests/vectors/verify.mjs [folder of the vectors [topic ...]]`.
//
// One line for each file. Exits with 1 if any vector is off.

import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import * as p from './node/primitives.mjs';
import { decode, encode, readBitmap, writeBitmap } from './node/messages.mjs';
import * as protocol from './node/protocol.mjs';
import { Replay } from './node/session.mjs';

const { same, unhex, hex, refused } = p;

const published = {
  aes_128_ctr: ({ key, first_block, plaintext, ciphertext }) =>
    same(p.counterMode(unhex(key), p.fromBigEndian(unhex(first_block)), unhex(plaintext)), unhex(ciphertext), 'AES'),
  hkdf_sha256: ({ secret, salt, info, output }) =>
    same(p.hkdf(unhex(secret), unhex(salt), unhex(info), output.length / 2), unhex(output), 'HKDF'),
  x25519: ({ scalar, point, output }) => same(p.agree(unhex(scalar), unhex(point)), unhex(output), 'X25519'),
  x25519_public: ({ seed, public: key }) => same(p.publicOf('x25519', unhex(seed)), unhex(key), 'public key'),
  x25519_low_order: (key) => refused(() => p.agree(Buffer.alloc(32, 1), unhex(key)), key),
  ed25519: ({ seed, public: key, message, signature }) => {
    same(p.publicOf('ed25519', unhex(seed)), unhex(key), 'identity');
    same(p.sign(unhex(seed), unhex(message)), unhex(signature), 'signature');
  },
  chacha20_poly1305: ({ key, nonce, associated_data, plaintext, box }) =>
    same(p.openBox(unhex(key), unhex(nonce), unhex(associated_data), unhex(box)), unhex(plaintext), 'box'),
};

const prg = {
  derive: ({ secret, purpose, binders, key }) =>
    same(p.derive(unhex(secret), purpose, binders.map(unhex), key.length / 2), unhex(key), purpose),
  stream: ({ key, bits, start, words }) => {
    const size = protocol.WORD_BYTES[bits];
    const drawn = protocol.elements(unhex(key), bits, start + unhex(words).length / size).slice(start);
    same(Buffer.concat(drawn.map((word) => p.littleEndian(word, size))), unhex(words), 'stream');
  },
  check_masks: ({ key, masks }) => same(protocol.checkMasks(unhex(key)), masks, 'checksum masks'),
  seeded_entropy: ({ seed, bytes }) => same(p.seeded(unhex(seed), bytes.length / 2), unhex(bytes), 'seeded entropy'),
};

const read = (shares) => shares.map(({ point, share }) => ({ point, share: unhex(share) }));

const shamir = {
  split: ({ secret, threshold, entropy, shares }) => {
    const made = protocol.split(unhex(secret), threshold, shares.map(({ point }) => point), unhex(entropy));
    same(made.map(hex), shares.map(({ share }) => share), 'shares');
  },
  rebuild: ({ name, shares, secret }) =>
    secret === null
      ? refused(() => protocol.rebuild(read(shares)), name)
      : same(protocol.rebuild(read(shares)), unhex(secret), name),
  refused_split: ({ name, secret, threshold, points }) =>
    refused(() => protocol.split(unhex(secret), threshold, points, Buffer.alloc(480)), name),
};

const commitments = {
  share: ({ salt, dealer, holder, share, commitment }) => {
    same(protocol.shareCommitment(unhex(salt), dealer, holder, unhex(share)), unhex(commitment), 'commitment');
    protocol.element(unhex(share));
  },
  seed: ({ h1, owner, seed, commitment }) =>
    same(protocol.seedCommitment(unhex(h1), owner, unhex(seed)), unhex(commitment), 'commitment'),
  not_a_field_element: (bytes) => refused(() => protocol.element(unhex(bytes)), bytes),
};

function sealing(vectors) {
  const [dealer, holder] = [unhex(vectors.dealer_seed), unhex(vectors.holder_seed)];
  same(p.publicOf('x25519', dealer), unhex(vectors.dealer_public), 'public key');
  same(p.publicOf('x25519', holder), unhex(vectors.holder_public), 'public key');
  const agreed = p.agree(holder, unhex(vectors.dealer_public));
  same(p.agree(dealer, unhex(vectors.holder_public)), agreed, 'agreement');
  same(agreed, unhex(vectors.agreed), 'agreement');
  const opened = protocol.openShares(vectors.sealed, agreed, unhex(vectors.h1));
  same(opened.map(({ share, salt }) => ({ share: hex(share), salt: hex(salt) })), vectors.opened, 'opened');
  for (const { name, h1, sealed } of vectors.refused) {
    refused(() => protocol.openShares(sealed, agreed, unhex(h1)), name);
  }
  return 1 + vectors.refused.length;
}

function declarations({ layouts, valid, invalid }) {
  for (const { layout, kind, data, held } of valid) {
    same(protocol.expand(layouts[layout], kind, unhex(data)), held, kind);
  }
  for (const { layout, kind, data, why } of invalid) {
    refused(() => protocol.expand(layouts[layout], kind, unhex(data)), why);
  }
  return valid.length + invalid.length;
}

function messages({ valid, long, invalid, bitmaps }) {
  for (const { type, fields, bytes } of valid) {
    same(decode(unhex(bytes)), { tag: type, fields }, type);
    same(encode(type, fields), unhex(bytes), type);
  }
  const data = Buffer.concat([unhex(long.head), Buffer.alloc(long.zeros), unhex(long.tail)]);
  same(decode(data).fields.vector, '00'.repeat(long.zeros), 'a long vector');
  for (const { name, bytes } of invalid) refused(() => decode(unhex(bytes)), name);
  for (const { data, chosen } of bitmaps.valid) {
    same(readBitmap(unhex(data), bitmaps.clients), chosen, 'bitmap');
    same(writeBitmap(chosen, bitmaps.clients), unhex(data), 'bitmap');
  }
  for (const bitmap of bitmaps.invalid) refused(() => readBitmap(unhex(bitmap), bitmaps.clients), bitmap);
  return valid.length + 1 + invalid.length + bitmaps.valid.length + bitmaps.invalid.length;
}

const ring = {
  packed: ({ bits, integers, bytes }) => {
    same(protocol.packVector(bits, integers.map(BigInt)), unhex(bytes), 'packed');
    const words = protocol.unpackVector(bits, unhex(bytes));
    same(words.map((word) => String(BigInt.asIntN(bits, word))), integers.map(String), 'unpacked');
  },
  holding: ({ largest, bits }) => same(protocol.ringBits(largest), bits, 'ring'),
  overflow: (largest) => same(protocol.ringBits(largest) ?? null, null, 'ring'),
};

const encoding = {
  values: ({ levels, value_range, out_of_range, weight, values, integers }) => {
    const params = { levels, max_weight: 1 };
    const bound = Number(weight === null ? protocol.magnitude(params) : protocol.encodeWeight(params, weight));
    const saturate = out_of_range === 'saturate';
    const encoded = values.map((value) => protocol.encodeValue(value, value_range, bound, saturate));
    same(encoded.map(String), integers.map(String), 'encoded');
  },
  weights: ({ weight, encoded, bucket, bucket_weight }) => {
    const params = { levels: 2 ** 20, max_weight: 10 };
    const found = [protocol.encodeWeight(params, weight), protocol.bucketOf(params, weight)];
    same([...found, protocol.bucketWeight(params, bucket)].map(Number), [encoded, bucket, bucket_weight], 'weight');
  },
};

function masks({ h2: hash, client, masked, ...vectors }) {
  const [h2, own] = [unhex(hash), vectors.places[client]];
  const selfKey = protocol.selfKey(unhex(vectors.self_seed), h2);
  same(selfKey, unhex(vectors.self_key), 'key of the self mask');
  for (const { integers, sums } of vectors.checksums) {
    same(protocol.checksums(h2, own, integers.map(BigInt)), sums, 'checksums');
  }
  for (const { bits, integers, check, vector } of masked) {
    const hidden = [];
    protocol.filled(own).forEach((place, k) => (hidden[place] = BigInt(integers[k])));
    const checks = protocol.checksums(h2, own, integers.map(BigInt));
    protocol.apply(hidden, checks, 1n, selfKey, bits, own, own);
    for (const [peer, expected] of Object.entries(vectors.pairwise_keys)) {
      const [mine, theirs] = [client, peer].map((id) => unhex(vectors.masking_seeds[id]));
      const key = protocol.pairwiseKey(p.agree(mine, p.publicOf('x25519', theirs)), h2, client, peer);
      same(key, unhex(expected), 'key of a pairwise mask');
      protocol.apply(hidden, checks, protocol.pairwiseSign(client, peer), key, bits, own, vectors.places[peer]);
    }
    same(protocol.packVector(bits, protocol.filled(own).map((place) => hidden[place])), unhex(vector), 'masked vector');
    same(Buffer.concat(checks.map((sum) => p.littleEndian(sum, 8))), unhex(check), 'masked checksums');
  }
  return masked.length + vectors.checksums.length;
}

function digests(sessions) {
  for (const session of sessions) {
    const found = Object.entries(protocol.sessionDigests(session)).map(([name, value]) => [name, hex(value)]);
    same(Object.fromEntries(found), session.digests, 'digests');
  }
  return sessions.length;
}

function signatures(vectors) {
  const { members, participants, sealed, degree, threshold } = vectors;
  const { session } = protocol.sessionDigests(vectors.session);
  const h1 = protocol.firstHash(session, members, degree, threshold);
  const h2 = protocol.secondHash(h1, participants);
  same([protocol.graphSeed(session, members), h1, h2].map(hex), [vectors.graph_seed, vectors.h1, vectors.h2], 'hashes');
  const statements = {
    keys: protocol.says.keys(session, members[0]),
    h1: protocol.says.h1(h1, participants[0]),
    shares: protocol.says.shares(h1, sealed),
    h2: protocol.says.h2(h2, 5),
    survivors: protocol.says.survivors(h2, unhex(vectors.survivors), 5),
  };
  for (const one of vectors.identities) {
    same(p.publicOf('ed25519', unhex(one.seed)), unhex(one.public), 'identity');
  }
  const [{ seed, public: key }] = vectors.identities;
  for (const { says, statement, signature } of vectors.signed) {
    same(statements[says], unhex(statement), says);
    same(p.sign(unhex(seed), statements[says]), unhex(signature), says);
  }
  for (const { name, statement, signature } of vectors.refused) {
    refused(() => p.verify(unhex(key), unhex(statement), unhex(signature)), name);
  }
  return vectors.signed.length + vectors.refused.length;
}

function graphs(cases) {
  for (const { clients, degree, seed, order, neighbours } of cases) {
    same(protocol.ringOrder(clients, degree, unhex(seed)), order, 'ring');
    for (const one of neighbours) same(protocol.neighbours(order, degree, one.client), one.neighbours, 'neighbours');
  }
  return cases.length;
}

function models(cases) {
  for (const { leaves, root } of cases) same(protocol.merkleRoot(leaves.map(unhex)), unhex(root), 'root');
  return cases.length;
}

/** A topic whose vectors are lists, each checked by a function of one vector. */
const listed = (checks) => (vectors) =>
  Object.entries(checks).reduce((count, [name, check]) => {
    vectors[name].forEach(check);
    return count + vectors[name].length;
  }, 0);

const session = (recorded) => new Replay(recorded).verify();

const TOPICS = {
  published: listed(published),
  prg: listed(prg),
  shamir: listed(shamir),
  commitments: listed(commitments),
  sealing,
  declarations,
  messages,
  ring: listed(ring),
  encoding: listed(encoding),
  masks,
  digests,
  signatures,
  graphs,
  models,
  'session-uniform': session,
  'session-uniform-sparse': session,
  'session-mask-indexed-active': session,
  'session-mask-indexed-weighted': session,
};

const [folder = path.dirname(fileURLToPath(import.meta.url)), ...chosen] = process.argv.slice(2);

for (const topic of chosen.length ? chosen : Object.keys(TOPICS)) {
  try {
    const vectors = JSON.parse(fs.readFileSync(path.join(folder, `${topic}.json`), 'utf8'));
    console.log(`${topic}: ${TOPICS[topic](vectors)} vectors`);
  } catch (error) {
    process.exitCode = 1;
    console.log(`${topic}: FAILED: ${error.message.slice(0, 200)}`);
    if (!(error instanceof p.Mismatch)) console.error(error.stack);
  }
}
