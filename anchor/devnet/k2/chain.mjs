// The chain over the bank: slots, blocks, what is in them, and how final that is.

import crypto from 'node:crypto';
import { base58, fromBase58, RPCError } from './encoding.mjs';
import { BANK_FEE, errorText } from './bank.mjs';

const SPKI = Buffer.from('302a300506032b6570032100', 'hex');

function signed(tx) {
  return tx.signatures.every((signature, i) => {
    const key = crypto.createPublicKey({ key: Buffer.concat([SPKI, fromBase58(tx.keys[i])]), format: 'der', type: 'spki' });
    return crypto.verify(null, tx.message, key, signature);
  });
}

export class Chain {
  slot = 0n;
  paused = false;
  hashes = new Map(); // blockhash -> slot, of those that are good, oldest first
  blocks = new Map(); // slot -> { blockhash, time, signatures }
  transactions = new Map(); // signature -> what became of it
  byAddress = new Map(); // address -> signatures, newest first
  // Faults that control.mjs asks for.
  dropNext = 0;
  failNext = 0;
  missing = new Set(); // programs that are taken away
  forgotten = new Map(); // signature -> transaction that fell out of its block

  constructor(bank, options) {
    this.bank = bank;
    Object.assign(this, options); // confirmed, finalized, valid, fee
  }

  async openSlot() {
    this.slot++;
    const time = Math.floor(Date.now() / 1000);
    await this.bank.setTime(this.slot, BigInt(time));
    this.tip = base58(crypto.randomBytes(32));
    this.genesis ??= this.tip;
    this.hashes.set(this.tip, this.slot);
    this.blocks.set(this.slot, { blockhash: this.tip, time, signatures: [] });
    for (const [hash, slot] of this.hashes) {
      if (slot + BigInt(this.valid) >= this.slot) break;
      this.hashes.delete(hash);
    }
  }

  // height is that of the newest block of a commitment; no slot is skipped here.
  height(commitment = 'finalized') {
    const depth = BigInt({ processed: 0, confirmed: this.confirmed }[commitment] ?? this.finalized);
    return this.slot > depth ? this.slot - depth : 0n;
  }

  latestBlockhash(commitment) {
    const limit = this.height(commitment);
    let best = this.hashes.entries().next().value;
    for (const entry of this.hashes) {
      if (entry[1] > limit) break;
      best = entry;
    }
    return { blockhash: best[0], lastValidBlockHeight: Number(best[1]) + this.valid };
  }

  price(message) {
    return this.fee * message.header[0] + message.priority;
  }

  async simulate(tx) {
    if (tx.instructions.some((i) => this.missing.has(tx.keys[i.programIdIndex]))) return { err: 'ProgramAccountNotFound', logs: [], units: 0 };
    return this.bank.run(tx, true);
  }

  // send takes a transaction as a validator does, and lands it in the open slot.
  async send(tx, skipPreflight) {
    const signature = base58(tx.signatures[0]);
    const refuse = (err, logs = []) => {
      if (skipPreflight) return signature; // taken, and never heard of again
      if (err === 'SignatureFailure') throw new RPCError(-32003, 'Transaction signature verification failure');
      throw new RPCError(-32002, 'Transaction simulation failed: ' + errorText(err), { accounts: null, err, logs, unitsConsumed: 0, returnData: null });
    };
    if (!signed(tx)) return refuse('SignatureFailure'); // which bankrun does not check
    if (!this.hashes.has(tx.blockhash)) return refuse('BlockhashNotFound');
    if (this.transactions.has(signature)) return refuse('AlreadyProcessed');
    const back = this.forgotten.get(signature);
    if (back === undefined) {
      if (await this.bank.balance(tx.keys[0]) < this.price(tx)) {
        return refuse(await this.bank.account(tx.keys[0]) === null ? 'AccountNotFound' : 'InsufficientFundsForFee');
      }
      const s = await this.simulate(tx);
      if (s.err !== null && (!skipPreflight || typeof s.err === 'string')) return refuse(s.err, s.logs);
    }
    if (this.dropNext > 0) {
      this.dropNext--;
      return signature;
    }
    if (back !== undefined) {
      // The bank has executed it, and would not do so again.
      this.forgotten.delete(signature);
      this.record(signature, { ...back, slot: this.slot });
      return signature;
    }
    const r = await this.land(tx, signature);
    return typeof r.err === 'string' ? refuse(r.err, r.logs) : signature;
  }

  async land(tx, signature) {
    const balances = () => Promise.all(tx.keys.map((key) => this.bank.balance(key)));
    const before = await balances();
    let r;
    if (this.failNext > 0) {
      this.failNext--;
      r = { err: { InstructionError: [tx.instructions.length - 1, 'ProgramFailedToComplete'] }, logs: [], units: 0 };
      await this.bank.debit(tx.keys[0], this.price(tx));
    } else {
      r = await this.bank.run(tx, false);
      if (typeof r.err === 'string') return r;
      const rest = (this.fee - BANK_FEE) * tx.header[0];
      if (rest > 0) await this.bank.debit(tx.keys[0], rest);
    }
    this.record(signature, {
      slot: this.slot, tx, err: r.err,
      meta: {
        err: r.err, status: r.err === null ? { Ok: null } : { Err: r.err }, fee: this.price(tx), preBalances: before, postBalances: await balances(),
        innerInstructions: [], logMessages: r.logs, preTokenBalances: [], postTokenBalances: [], rewards: [],
        loadedAddresses: { writable: [], readonly: [] }, computeUnitsConsumed: r.units,
      },
    });
    return r;
  }

  record(signature, landed) {
    this.transactions.set(signature, landed);
    this.blocks.get(landed.slot).signatures.push(signature);
    for (const key of new Set(landed.tx.keys)) this.byAddress.set(key, [signature, ...(this.byAddress.get(key) ?? [])]);
  }

  // forget takes a transaction out of its block, as when the fork is dropped that had it.
  forget(signature) {
    const landed = this.transactions.get(signature);
    if (landed === undefined) return false;
    const without = (list) => list.filter((s) => s !== signature);
    this.transactions.delete(signature);
    this.forgotten.set(signature, landed);
    const block = this.blocks.get(landed.slot);
    block.signatures = without(block.signatures);
    for (const key of new Set(landed.tx.keys)) this.byAddress.set(key, without(this.byAddress.get(key)));
    return true;
  }

  // visible returns a transaction that a commitment shows.
  visible(signature, commitment) {
    const landed = this.transactions.get(signature);
    return landed !== undefined && landed.slot <= this.height(commitment) ? landed : null;
  }

  status(signature) {
    const landed = this.transactions.get(signature);
    if (landed === undefined) return null;
    const depth = this.slot - landed.slot;
    const final = depth >= BigInt(this.finalized);
    return {
      slot: Number(landed.slot), confirmations: final ? null : Number(depth), err: landed.err, status: landed.meta.status,
      confirmationStatus: final ? 'finalized' : depth >= BigInt(this.confirmed) ? 'confirmed' : 'processed',
    };
  }
}
