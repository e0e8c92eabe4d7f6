// A whole session again: what each client must have sent, from its entropy, and the sum, from the wire alone.

import * as p from './primitives.mjs';
import { decode, encode, readBitmap, writeBitmap } from './messages.mjs';
import * as protocol from './protocol.mjs';

export class Replay {
  constructor(recorded) {
    this.recorded = recorded;
    this.session = recorded.session;
    this.active = this.session.params.adversary === 'active';
    this.cast = new Map(recorded.clients.map((one) => [one.client, one]));
    this.digests = protocol.sessionDigests(this.session);
    this.checked = 0;
  }

  /** All checks, round by round; the number of messages that were made again and compared. */
  verify() {
    p.same(this.digests.session, p.unhex(this.recorded.digests.session), 'digest of the session');
    for (const [name, round] of Object.entries({
      AdvertiseKeys: () => this.advertiseKeys(),
      ShareKeys: () => this.shareKeys(),
      MaskedInput: () => this.maskedInput(),
      ConsistencyCheck: () => this.consistencyCheck(),
      Unmask: () => this.unmask(),
    })) {
      this.round = this.recorded.rounds.find((one) => one.round === name);
      if (this.round) round();
    }
    this.takeMasksOff();
    return this.checked;
  }

  /** Client to fields of the messages that clients sent in this round. */
  sent() {
    return new Map(
      this.round.sent.map(({ client, bytes }) => {
        const { tag, fields } = decode(p.unhex(bytes));
        p.same([tag, fields.session, fields.sender], [this.round.round, this.session.id, client], 'sender');
        return [client, fields];
      }),
    );
  }

  delivered(client, tag, fields) {
    const found = this.round.delivered.find(({ clients }) => clients.includes(client));
    p.same(encode(tag, { session: this.session.id, ...fields }), p.unhex(found.bytes), `${tag} to ${client}`);
    this.checked += 1;
  }

  equal(client, fields, expected) {
    p.same(fields, { session: this.session.id, sender: client, ...expected }, `${this.round.round} of ${client}`);
    this.checked += 1;
  }

  signature(client, statement) {
    if (!this.active) return null;
    const { identity, public_identity: pinned } = this.cast.get(client);
    p.same(p.publicOf('ed25519', p.unhex(identity)), p.unhex(pinned), 'identity');
    const signature = p.sign(p.unhex(identity), statement);
    p.verify(p.unhex(pinned), statement, signature);
    return p.hex(signature);
  }

  signatures(clients, statementOf) {
    return this.active ? clients.map((client) => this.signature(client, statementOf(client))) : [];
  }

  advertiseKeys() {
    const members = new Map();
    for (const [client, fields] of this.sent()) {
      const [masking, transport] = this.tape(client, [32, 32]);
      const [masking_key, transport_key] = [masking, transport].map((seed) => p.hex(p.publicOf('x25519', seed)));
      members.set(client, { id: client, masking_key, transport_key });
      const signature = this.signature(client, protocol.says.keys(this.digests.session, members.get(client)));
      this.equal(client, fields, { masking_key, transport_key, signature });
      Object.assign(this.cast.get(client), { masking, transport });
    }
    const [listed, { degree, threshold }] = [[...members.values()], this.recorded.wiring];
    const seed = protocol.graphSeed(this.digests.session, listed);
    this.members = members;
    this.order = protocol.ringOrder([...members.keys()], degree, seed);
    this.h1 = protocol.firstHash(this.digests.session, listed, degree, threshold);
    p.same(this.order, this.recorded.ring, 'ring');
    p.same([p.hex(seed), p.hex(this.h1)], [this.recorded.graph_seed, this.recorded.h1], 'graph seed and h1');
    const signatures = this.signatures([...members.keys()], (client) =>
      protocol.says.keys(this.digests.session, members.get(client)),
    );
    for (const client of members.keys()) this.delivered(client, 'Roster', { members: listed, signatures });
  }

  /** What a client makes of its recorded entropy, piece by piece. */
  tape(client, lengths) {
    let start = 0;
    const entropy = p.unhex(this.cast.get(client).entropy);
    const binders = [this.digests.session, protocol.id(client)];
    return lengths.map((length) => p.derive(entropy.subarray(start, (start += length)), 'fresh', binders, length));
  }

  peers(client, among) {
    return protocol.neighbours(this.order, this.recorded.wiring.degree, client).filter((peer) => among.has(peer));
  }

  /** Whose shares a client holds, which are also those who hold its own: its neighbours and itself, ascending. */
  holders(client, among) {
    const peers = new Set(this.peers(client, among));
    return [...among.keys()].filter((id) => id === client || peers.has(id));
  }

  shareKeys() {
    const [sent, { threshold }] = [this.sent(), this.recorded.wiring];
    this.participants = new Map();
    for (const [client, fields] of sent) {
      this.deal(client, threshold);
      const { self_seed: seed } = this.cast.get(client);
      const participant = { id: client, ...this.declared(client) };
      this.participants.set(client, participant);
      this.equal(client, fields, {
        params: p.hex(this.digests.params),
        layout: p.hex(this.digests.layout),
        transcript: p.hex(this.h1),
        declaration: participant.declaration,
        weight_bucket: participant.weight_bucket,
        seed_commitment: p.hex(protocol.seedCommitment(this.h1, client, seed)),
        shares: fields.shares,
        signature: this.signature(client, protocol.says.h1(this.h1, participant)),
      });
      p.same(fields.shares.map(({ holder }) => holder), this.peers(client, this.members), `holders of ${client}`);
      fields.shares.forEach((sealed) => this.open(client, sealed));
    }
    const participants = [...this.participants.values()];
    this.h2 = protocol.secondHash(this.h1, participants);
    p.same(p.hex(this.h2), this.recorded.h2, 'h2');
    const signatures = this.signatures([...sent.keys()], (id) => protocol.says.h1(this.h1, this.participants.get(id)));
    this.boxes = [...sent.values()].flatMap(({ shares }) => shares);
    this.commitments = new Map([...sent].map(([client, fields]) => [client, fields.seed_commitment]));
    for (const client of sent.keys()) {
      const shares = this.boxes.filter(({ holder }) => holder === client);
      this.delivered(client, 'RelayedShares', { participants, shares, signatures });
    }
  }

  deal(client, threshold) {
    const one = this.cast.get(client);
    const holders = this.holders(client, this.members);
    const points = holders.map((holder) => 1 + [...this.members.keys()].indexOf(holder));
    const [random, salted] = [Array(2 * (threshold - 1)).fill(48), holders.flatMap(() => [16, 16])];
    const [, , seed, ...rest] = this.tape(client, [32, 32, 32, ...random, ...salted]);
    const halves = [rest.slice(0, threshold - 1), rest.slice(threshold - 1, random.length)];
    const [ofSelf, ofKey] = halves.map((half) => Buffer.concat(half));
    const salts = rest.slice(random.length);
    const secrets = [[seed, ofSelf], [one.masking, ofKey]];
    const shares = secrets.map(([secret, entropy]) => protocol.split(secret, threshold, points, entropy));
    one.self_seed = seed;
    one.dealt = new Map(
      holders.map((holder, k) => [holder, shares.map((of, kind) => ({ share: of[k], salt: salts[2 * k + kind] }))]),
    );
  }

  /** The holder's view of a box that travelled: it opens, and holds what the dealer's entropy leads to. */
  open(dealer, sealed) {
    const { transport } = this.cast.get(sealed.holder);
    const agreed = p.agree(transport, p.unhex(this.members.get(dealer).transport_key));
    const opened = protocol.openShares(sealed, agreed, this.h1);
    const expected = this.cast.get(dealer).dealt.get(sealed.holder);
    const shown = (pair) => pair.map(({ share, salt }) => [p.hex(share), p.hex(salt)]);
    p.same(shown(opened), shown(expected), `shares of ${dealer} for ${sealed.holder}`);
    p.same(sealed.signature, this.signature(dealer, protocol.says.shares(this.h1, sealed)), 'signature on shares');
  }

  declared(client) {
    const { session } = this;
    const { mask, weight } = this.cast.get(client);
    const full = { kind: 'full', data: '', provenance: 'public' };
    const open = session.weighted && session.params.weighting === 'public';
    const bucket = open ? Number(protocol.bucketOf(session.params, weight)) : null;
    return { declaration: session.mode === 'uniform' ? full : mask, weight_bucket: bucket };
  }

  maskedInput() {
    const sent = this.sent();
    const held = new Map(
      [...this.participants].map(([client, { declaration }]) => [
        client,
        protocol.expand(this.session.layout, declaration.kind, p.unhex(declaration.data)),
      ]),
    );
    this.release = new protocol.Release(this.session, this.recorded.wiring.needed, held);
    p.same(this.release.released, this.recorded.released, 'what is released');
    p.same(this.release.bits, this.recorded.bits, 'ring');
    for (const { client, places } of this.recorded.places) p.same(this.release.places(client), places, 'places');
    for (const [client, fields] of sent) {
      const signature = this.signature(client, protocol.says.h2(this.h2, client));
      this.equal(client, fields, { ...this.masked(client), signature });
    }
    this.inputs = sent;
    this.survivors = [...sent.keys()];
    this.bitmap = p.hex(writeBitmap(this.survivors, [...this.participants.keys()]));
    const signatures = this.signatures(this.survivors, (client) => protocol.says.h2(this.h2, client));
    const [tag, rest] = this.active ? ['ConsistencyRequest', { signatures }] : ['UnmaskRequest', { quorum: [] }];
    for (const client of this.survivors) this.delivered(client, tag, { survivors: this.bitmap, ...rest });
  }

  masked(client) {
    const one = this.cast.get(client);
    const [own, bits] = [this.release.places(client), this.release.bits];
    const integers = this.release.integers(client, one, this.weight(client));
    p.same(integers.map(String), one.integers.map(String), `integers of ${client}`);
    const vector = [];
    protocol.filled(own).forEach((place, k) => (vector[place] = integers[k]));
    const checks = protocol.checksums(this.h2, own, integers);
    protocol.apply(vector, checks, 1n, protocol.selfKey(one.self_seed, this.h2), bits, own, own);
    for (const peer of this.peers(client, this.participants)) {
      const key = this.pairwise(one.masking, client, peer, peer);
      protocol.apply(vector, checks, protocol.pairwiseSign(client, peer), key, bits, own, this.release.places(peer));
    }
    const check = Buffer.concat(checks.map((sum) => p.littleEndian(sum, 8)));
    const filled = protocol.filled(own).map((place) => vector[place]);
    return { check: p.hex(check), vector: p.hex(protocol.packVector(bits, filled)) };
  }

  /** Key of the stream between two clients, from the seed of one and the public key of ``other``. */
  pairwise(seed, one, peer, other) {
    const agreed = p.agree(seed, p.unhex(this.members.get(other).masking_key));
    return protocol.pairwiseKey(agreed, this.h2, one, peer);
  }

  weight(client) {
    if (!this.session.weighted) return null;
    const { weight_bucket: bucket } = this.participants.get(client);
    const { params } = this.session;
    const { weight } = this.cast.get(client);
    return bucket === null ? protocol.encodeWeight(params, weight) : protocol.bucketWeight(params, bucket);
  }

  consistencyCheck() {
    const sent = this.sent();
    const statement = (client) => protocol.says.survivors(this.h2, p.unhex(this.bitmap), client);
    for (const [client, fields] of sent) {
      this.equal(client, fields, { signature: this.signature(client, statement(client)) });
    }
    const quorum = [...sent].slice(0, this.recorded.wiring.needed).map(([id, { signature }]) => ({ id, signature }));
    for (const client of sent.keys()) this.delivered(client, 'UnmaskRequest', { survivors: this.bitmap, quorum });
  }

  unmask() {
    this.revealed = this.sent();
    for (const [client, fields] of this.revealed) {
      const shares = this.holders(client, this.participants).map((dealer) => {
        const kind = this.survivors.includes(dealer) ? 0 : 1;
        const { share, salt } = this.cast.get(dealer).dealt.get(client)[kind];
        return { dealer, share: p.hex(share), salt: p.hex(salt) };
      });
      this.equal(client, fields, { shares });
    }
  }

  /** The server's part, from nothing but messages: rebuilds every secret, takes the masks off, checks the sums. */
  takeMasksOff() {
    const { bits } = this.release;
    const clients = [...this.members.keys()];
    const length = this.release.places(this.survivors[0]).length;
    const [total, checks] = [Array(length).fill(0n), [0n, 0n]];
    p.same(readBitmap(p.unhex(this.bitmap), [...this.participants.keys()]), this.recorded.survivors, 'survivors');
    for (const client of this.survivors) {
      const { check, vector } = this.inputs.get(client);
      const brought = protocol.unpackVector(bits, p.unhex(vector));
      protocol.filled(this.release.places(client)).forEach((place, k) => (total[place] += brought[k]));
      [0, 1].forEach((k) => (checks[k] += p.fromLittleEndian(p.unhex(check).subarray(8 * k, 8 * k + 8))));
    }
    for (const client of this.participants.keys()) {
      const secret = this.rebuilt(client, clients);
      if (this.survivors.includes(client)) {
        p.same(protocol.seedCommitment(this.h1, client, secret), p.unhex(this.commitments.get(client)), 'seed');
        const own = this.release.places(client);
        protocol.apply(total, checks, -1n, protocol.selfKey(secret, this.h2), bits, own, own);
      } else {
        p.same(p.publicOf('x25519', secret), p.unhex(this.members.get(client).masking_key), 'masking key');
        this.takePairwiseOff(client, secret, total, checks);
      }
    }
    const sums = total.map((sum) => BigInt.asIntN(bits, sum));
    p.same(sums.map(String), this.recorded.sum.map(String), 'sum');
    const expected = protocol.checksums(this.h2, '1'.repeat(length), sums);
    p.same(checks.map((sum) => BigInt.asUintN(64, sum)), expected, 'checksums of the sum');
  }

  takePairwiseOff(gone, secret, total, checks) {
    for (const client of this.survivors.filter((id) => this.peers(gone, this.participants).includes(id))) {
      const key = this.pairwise(secret, gone, client, client);
      const sign = -protocol.pairwiseSign(client, gone);
      const [own, theirs] = [client, gone].map((id) => this.release.places(id));
      protocol.apply(total, checks, sign, key, this.release.bits, own, theirs);
    }
  }

  rebuilt(dealer, clients) {
    const shares = [...this.revealed].flatMap(([holder, fields]) =>
      fields.shares
        .filter((one) => one.dealer === dealer)
        .map(({ share }) => ({ point: 1 + clients.indexOf(holder), share: p.unhex(share) })),
    );
    return protocol.rebuild(shares.slice(0, this.recorded.wiring.threshold));
  }
}
