// Methods that no chain has: tests turn the chain and its faults with them.

import { invalid, publicKey } from './encoding.mjs';

const MAX_SLOTS = 1000;

export function control(chain) {
  return {
    // svm_advanceSlots [n]: opens n slots and returns the open one.
    svm_advanceSlots: async ([n = 1] = []) => {
      if (!(n >= 0 && n <= MAX_SLOTS)) throw invalid(`at most ${MAX_SLOTS} slots at once`);
      for (let i = 0; i < n; i++) await chain.openSlot();
      return Number(chain.slot);
    },
    // svm_pause [true]: slots do not tick by themselves.
    svm_pause: ([paused = true] = []) => (chain.paused = paused === true),
    // svm_dropNext [n]: the next n transactions are taken and never land.
    svm_dropNext: ([n = 1] = []) => (chain.dropNext = Number(n)),
    // svm_failNext [n]: the next n transactions land, pay, and fail.
    svm_failNext: ([n = 1] = []) => (chain.failNext = Number(n)),
    // svm_forget [signature]: a transaction falls out of its block; sent again, it lands again.
    svm_forget: ([signature]) => chain.forget(signature),
    // svm_setFee [n]: a signature costs n from now on; returns what it cost before.
    svm_setFee: ([n]) => {
      const before = chain.fee;
      if (!(n >= 0)) throw invalid('a fee is a number');
      chain.fee = n;
      return before;
    },
    // svm_setProgram [id, false]: a program is gone, or with true back again.
    svm_setProgram: ([id, there = true]) => {
      publicKey(id);
      if (there) chain.missing.delete(id);
      else chain.missing.add(id);
      return there;
    },
  };
}
