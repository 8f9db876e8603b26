// Base58 and the wire form of transactions.

const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';

export function base58(bytes) {
  let n = bytes.length === 0 ? 0n : BigInt('0x' + Buffer.from(bytes).toString('hex'));
  let text = '';
  for (; n > 0n; n /= 58n) text = ALPHABET[Number(n % 58n)] + text;
  for (const b of bytes) {
    if (b !== 0) break;
    text = '1' + text;
  }
  return text;
}

export function fromBase58(text) {
  let n = 0n;
  for (const c of text) {
    const digit = ALPHABET.indexOf(c);
    if (digit < 0) throw invalid('Invalid param: not base58');
    n = n * 58n + BigInt(digit);
  }
  let zeros = 0;
  while (text[zeros] === '1') zeros++;
  const hex = n === 0n ? '' : n.toString(16);
  return Uint8Array.from([...new Uint8Array(zeros), ...Buffer.from(hex.length % 2 ? '0' + hex : hex, 'hex')]);
}

export function publicKey(text) {
  const key = fromBase58(String(text));
  if (key.length !== 32) throw invalid('Invalid param: WrongSize');
  return key;
}

// An RPCError is answered as it is.
export class RPCError extends Error {
  constructor(code, message, data) {
    super(message);
    this.answer = { code, message, ...(data === undefined ? {} : { data }) };
  }
}

export const invalid = (message) => new RPCError(-32602, message);

const MAX_TRANSACTION = 1232;
const COMPUTE_BUDGET = 'ComputeBudget111111111111111111111111111111';

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  take(n) {
    if (this.at + n > this.bytes.length) {
      throw invalid('failed to deserialize solana_sdk::transaction::versioned::VersionedTransaction: io error: unexpected end of file');
    }
    return this.bytes.subarray(this.at, (this.at += n));
  }
  byte() {
    return this.take(1)[0];
  }
  // A length in 7-bit groups, the lowest first.
  length() {
    let n = 0;
    for (let shift = 0; ; shift += 7) {
      const b = this.byte();
      n |= (b & 127) << shift;
      if (b < 128) return n;
    }
  }
  list(read) {
    return Array.from({ length: this.length() }, read);
  }
}

export function parseMessage(message) {
  const r = new Reader(message);
  const legacy = (message[0] & 0x80) === 0;
  if (!legacy) r.byte();
  const header = [r.byte(), r.byte(), r.byte()];
  const keys = r.list(() => base58(r.take(32)));
  const blockhashAt = r.at;
  const blockhash = base58(r.take(32));
  let computeLimit = 200_000;
  let computePrice = 0n;
  const instructions = r.list(() => {
    const programIdIndex = r.byte();
    const accounts = [...r.take(r.length())];
    const data = Buffer.from(r.take(r.length()));
    if (keys[programIdIndex] === COMPUTE_BUDGET) {
      if (data[0] === 2) computeLimit = data.readUInt32LE(1);
      if (data[0] === 3) computePrice = data.readBigUInt64LE(1);
    }
    return { programIdIndex, accounts, data: base58(data), stackHeight: null };
  });
  // Micro-units of the fee a unit, rounded up.
  const priority = Number((BigInt(computeLimit) * computePrice + 999_999n) / 1_000_000n);
  return { legacy, header, keys, blockhash, blockhashAt, instructions, priority };
}

export function parseTransaction(text, encoding = 'base58') {
  const bytes = encoding === 'base64' ? new Uint8Array(Buffer.from(text, 'base64')) : fromBase58(text);
  if (bytes.length > MAX_TRANSACTION) {
    throw invalid(`${encoding} encoded solana_sdk::transaction::versioned::VersionedTransaction too large: ${bytes.length} bytes (max: encoded/raw 1644/${MAX_TRANSACTION})`);
  }
  const r = new Reader(bytes);
  const signatures = r.list(() => r.take(64));
  const message = bytes.subarray(r.at);
  const tx = { bytes, message, signatures, ...parseMessage(message) };
  if (signatures.length !== tx.header[0] || signatures.length > tx.keys.length) {
    throw invalid('invalid transaction: Transaction failed to sanitize accounts offsets correctly');
  }
  return tx;
}

// renderTransaction gives the form that getTransaction and getBlock answer with.
export function renderTransaction(tx, encoding = 'json') {
  if (encoding === 'base64') return [Buffer.from(tx.bytes).toString('base64'), 'base64'];
  if (encoding === 'base58') return [base58(tx.bytes), 'base58'];
  if (encoding !== 'json') throw invalid(`encoding ${encoding} is not there`);
  return {
    signatures: tx.signatures.map(base58),
    message: {
      accountKeys: tx.keys,
      header: { numRequiredSignatures: tx.header[0], numReadonlySignedAccounts: tx.header[1], numReadonlyUnsignedAccounts: tx.header[2] },
      recentBlockhash: tx.blockhash,
      instructions: tx.instructions,
    },
  };
}
