// The bank: solana-bankrun, which is that of Agave 1.18 with its programs, in this process.

import crypto from 'node:crypto';
import { createRequire } from 'node:module';
import { base58, fromBase58, publicKey, parseTransaction } from './encoding.mjs';

const { start, Clock, Account } = createRequire(import.meta.url)('solana-bankrun/dist/internal');

// bankrun gives errors as text, JSON-RPC as names.
const TRANSACTION_ERRORS = {
  'Blockhash not found': 'BlockhashNotFound',
  'This transaction has already been processed': 'AlreadyProcessed',
  'Transaction did not pass signature verification': 'SignatureFailure',
  'Attempt to debit an account but found no record of a prior credit.': 'AccountNotFound',
  'Insufficient funds for fee': 'InsufficientFundsForFee',
  'Attempt to load a program that does not exist': 'ProgramAccountNotFound',
};
const INSTRUCTION_ERRORS = {
  'Program failed to complete': 'ProgramFailedToComplete',
  'invalid instruction data': 'InvalidInstructionData',
  'missing required signature for instruction': 'MissingRequiredSignature',
  'invalid program argument': 'InvalidArgument',
  'Computational budget exceeded': 'ComputationalBudgetExceeded',
  'insufficient funds for instruction': 'InsufficientFunds',
};

function parseError(text) {
  if (text === null) return null;
  const m = /^Error processing Instruction (\d+): (.*)$/.exec(text);
  if (m === null) return TRANSACTION_ERRORS[text] ?? text;
  const custom = /custom program error: (0x[0-9a-f]+)/.exec(m[2]);
  return { InstructionError: [Number(m[1]), custom ? { Custom: Number(custom[1]) } : INSTRUCTION_ERRORS[m[2]] ?? m[2]] };
}

export function errorText(err) {
  if (typeof err === 'string') return Object.entries(TRANSACTION_ERRORS).find(([, name]) => name === err)?.[0] ?? err;
  const [index, what] = err.InstructionError;
  return `Error processing Instruction ${index}: ${typeof what === 'object' ? 'custom program error: 0x' + what.Custom.toString(16) : what}`;
}

// The bank's own base fee a signature; the difference to what is configured is taken
// from the payer's account afterwards.
export const BANK_FEE = 5000;

export class Bank {
  static async open() {
    const context = await start([], []);
    return new Bank(context);
  }

  constructor(context) {
    this.context = context;
    this.client = context.banksClient;
    const secret = Buffer.from(context.payer);
    const pkcs8 = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), secret.subarray(0, 32)]);
    this.faucet = { key: secret.subarray(32, 64), sign: (m) => crypto.sign(null, m, crypto.createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })) };
  }

  // setTime tells programs the slot and the time.
  async setTime(slot, seconds) {
    const c = await this.client.getClock();
    this.context.setClock(new Clock(slot, c.epochStartTimestamp, c.epoch, c.leaderScheduleEpoch, seconds));
  }

  // underItsOwnHash puts a blockhash into a transaction that the bank takes. It registers
  // new ones by the wall clock and forgets them within a second, however slowly slots go
  // here; which are good is for chain.mjs to say. Signatures it does not check.
  async underItsOwnHash(tx) {
    const { blockhash } = await this.client.getLatestBlockhash();
    const bytes = Uint8Array.from(tx.bytes);
    bytes.set(fromBase58(blockhash), bytes.length - tx.message.length + tx.blockhashAt);
    return bytes;
  }

  // run executes or simulates a transaction. An error that is a string means that it did
  // not get into the block.
  async run(tx, simulate) {
    // Two that differ in their blockhash only are one to the bank until it has the next.
    for (let tries = 0; ; tries++) {
      const r = await this.runOnce(tx, simulate);
      if (r.err !== 'AlreadyProcessed' || tries === 100) return r;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async runOnce(tx, simulate) {
    const name = (simulate ? 'simulate' : 'tryProcess') + (tx.legacy ? 'Legacy' : 'Versioned') + 'Transaction';
    try {
      const r = await this.client[name](await this.underItsOwnHash(tx));
      return { err: parseError(r.result), logs: r.meta?.logMessages ?? [], units: Number(r.meta?.computeUnitsConsumed ?? 0n) };
    } catch (e) {
      return { err: parseError(String(e.message ?? e).replace(/^.*transport.*: /, '')), logs: [], units: 0 };
    }
  }

  async balance(key) {
    return Number(await this.client.getBalance(publicKey(key)));
  }

  async account(key) {
    const a = await this.client.getAccount(publicKey(key));
    return a && { lamports: Number(a.lamports), owner: base58(a.owner), executable: a.executable, data: Buffer.from(a.data) };
  }

  async debit(key, amount) {
    const a = await this.client.getAccount(publicKey(key));
    this.context.setAccount(publicKey(key), new Account(a.lamports - BigInt(amount), a.data, a.owner, a.executable, a.rentEpoch));
  }

  async rent(size) {
    return Number((await this.client.getRent()).minimumBalance(BigInt(size)));
  }

  // transfer makes a signed transaction that pays from the faucet.
  transfer(to, amount, blockhash) {
    const data = Buffer.alloc(12);
    data.writeUInt32LE(2);
    data.writeBigUInt64LE(BigInt(amount), 4);
    const systemProgram = Buffer.alloc(32);
    const message = Buffer.concat([
      Buffer.from([1, 0, 1, 3]), this.faucet.key, publicKey(to), systemProgram, fromBase58(blockhash),
      Buffer.from([1, 2, 2, 0, 1, data.length]), data,
    ]);
    return parseTransaction(Buffer.concat([Buffer.from([1]), this.faucet.sign(message), message]).toString('base64'), 'base64');
  }
}
