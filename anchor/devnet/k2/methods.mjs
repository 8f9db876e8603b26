// The JSON-RPC methods, as Solana's documentation describes their answers.

import { base58, invalid, parseMessage, parseTransaction, publicKey, renderTransaction, RPCError } from './encoding.mjs';

const MAX_SIGNATURES = 256;

export function methods(chain) {
  const { bank } = chain;
  const context = (commitment) => ({ slot: Number(chain.height(commitment)), apiVersion: '1.16.7' });
  const answer = (commitment, value) => ({ context: context(commitment), value });

  function confirmedBlock(slot, commitment = 'finalized') {
    if (commitment === 'processed') throw invalid('Method does not support commitment below `confirmed`');
    const block = chain.blocks.get(BigInt(slot));
    if (block === undefined || BigInt(slot) > chain.height(commitment)) throw new RPCError(-32004, `Block not available for slot ${slot}`);
    return block;
  }

  function oneTransaction(landed, { encoding, maxSupportedTransactionVersion: max }) {
    if (!landed.tx.legacy && max === undefined) {
      throw new RPCError(-32015, 'Transaction version (0) is not supported by the requesting client. Please try the request again with the following configuration parameter: "maxSupportedTransactionVersion": 0');
    }
    const version = max === undefined ? {} : { version: landed.tx.legacy ? 'legacy' : 0 };
    return { transaction: renderTransaction(landed.tx, encoding), meta: landed.meta, ...version };
  }

  return {
    getHealth: () => 'ok',
    getVersion: () => ({ 'solana-core': '1.16.7', 'feature-set': 2891131721 }),
    getGenesisHash: () => chain.genesis,
    getFirstAvailableBlock: () => 1,
    getSlot: ([c] = []) => Number(chain.height(c?.commitment)),
    getBlockHeight: ([c] = []) => Number(chain.height(c?.commitment)),
    getEpochInfo: ([c] = []) => {
      const slot = Number(chain.height(c?.commitment));
      return { absoluteSlot: slot, blockHeight: slot, epoch: 0, slotIndex: slot, slotsInEpoch: 432000, transactionCount: chain.transactions.size };
    },
    getBlockTime: ([slot]) => confirmedBlock(slot, 'confirmed').time,
    getBlock: ([slot, config]) => {
      const c = typeof config === 'string' ? { encoding: config } : config ?? {};
      const block = confirmedBlock(slot, c.commitment);
      const parent = chain.blocks.get(BigInt(slot) - 1n);
      const out = {
        blockhash: block.blockhash, previousBlockhash: parent?.blockhash ?? '1'.repeat(32), parentSlot: Math.max(slot - 1, 0),
        blockTime: block.time, blockHeight: slot,
      };
      const details = c.transactionDetails ?? 'full';
      if (details === 'signatures') out.signatures = block.signatures;
      else if (details === 'full') out.transactions = block.signatures.map((s) => oneTransaction(chain.transactions.get(s), c));
      else if (details !== 'none') throw invalid(`transactionDetails ${details} is not there`);
      if (c.rewards !== false) out.rewards = [];
      return out;
    },
    getBalance: async ([key, c]) => answer(c?.commitment, await bank.balance(key)),
    getMinimumBalanceForRentExemption: ([size]) => bank.rent(size),
    getAccountInfo: async ([key, c = {}]) => {
      publicKey(key);
      const a = chain.missing.has(key) ? null : await bank.account(key);
      if (a === null) return answer(c.commitment, null);
      const { offset = 0, length = a.data.length } = c.dataSlice ?? {};
      const data = a.data.subarray(offset, offset + length).toString('base64');
      return answer(c.commitment, { lamports: a.lamports, owner: a.owner, executable: a.executable, rentEpoch: 0, space: a.data.length, data: [data, 'base64'] });
    },
    getLatestBlockhash: ([c] = []) => answer(c?.commitment, chain.latestBlockhash(c?.commitment)),
    isBlockhashValid: ([hash, c]) => answer(c?.commitment, chain.hashes.has(hash)),
    getFeeForMessage: ([text, c]) => {
      const message = parseMessage(new Uint8Array(Buffer.from(text, 'base64')));
      return answer(c?.commitment, chain.hashes.has(message.blockhash) ? chain.price(message) : null);
    },
    getRecentPrioritizationFees: () => [{ slot: Number(chain.slot), prioritizationFee: 0 }],
    requestAirdrop: async ([key, amount]) => {
      const tx = bank.transfer(key, amount, chain.tip);
      const signature = base58(tx.signatures[0]);
      if (chain.transactions.has(signature)) return signature; // the same once more in one slot
      const { err } = await chain.land(tx, signature);
      if (err !== null) throw new RPCError(-32603, 'airdrop failed: ' + JSON.stringify(err));
      return signature;
    },
    sendTransaction: ([text, c = {}]) => chain.send(parseTransaction(text, c.encoding), c.skipPreflight === true),
    simulateTransaction: async ([text, c = {}]) => {
      const s = await chain.simulate(parseTransaction(text, c.encoding));
      return answer(c.commitment, { err: s.err, logs: s.logs, accounts: null, unitsConsumed: s.units, returnData: null });
    },
    getSignatureStatuses: ([signatures]) => {
      if (signatures.length > MAX_SIGNATURES) throw invalid(`Too many inputs provided; max ${MAX_SIGNATURES}`);
      return answer('processed', signatures.map((s) => chain.status(s)));
    },
    getTransaction: ([signature, config]) => {
      const c = typeof config === 'string' ? { encoding: config } : config ?? {};
      const landed = chain.visible(signature, c.commitment);
      if (landed === null) return null;
      return { slot: Number(landed.slot), blockTime: chain.blocks.get(landed.slot).time, ...oneTransaction(landed, c) };
    },
    getSignaturesForAddress: ([key, c = {}]) => {
      let list = chain.byAddress.get(key) ?? [];
      if (c.before) list = list.slice(list.indexOf(c.before) + 1);
      if (c.until && list.includes(c.until)) list = list.slice(0, list.indexOf(c.until));
      return list.filter((s) => chain.visible(s, c.commitment)).slice(0, c.limit ?? 1000).map((signature) => {
        const { slot, err } = chain.transactions.get(signature);
        return { signature, slot: Number(slot), err, memo: null, blockTime: chain.blocks.get(slot).time, confirmationStatus: chain.status(signature).confirmationStatus };
      });
    },
  };
}
