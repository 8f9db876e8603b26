// Package store is SCALE's storage engine: datasets go in as streams, files or
// trees, are stored once, recorded in a signed ledger and given back verified.
//
// The bytes lie in pack files (package store/pack), everything that is looked up in
// Badger (store/badgerkv), under the rules of package dag for what things are called
// and of dag/ledger for how they are recorded. FORMAT.md beside this file describes
// the directory, the rows and the order of writing.
//
// What the package promises:
//
//   - When [Store.Put] returns, the datasets are durable and in the ledger. When it
//     fails, the ledger is as it was.
//   - No byte leaves the store that was not checked against its digest.
//   - The ledger is never signed twice at one size: before each signature the root is
//     recomputed from what is stored, and a mark outside the database tells when the
//     database lost rows. On any doubt the store reads and does not append.
//   - A ledger that is smaller than what was anchored of it reads and does not append.
//     It can be rebuilt from what was published ([Restore]) and go on ([Resume]).
//   - A full disk, a kill or a fault at any point leaves a store that opens again.
//   - Memory is bounded by the buffers in circulation, whatever the input.
//
// One process owns a directory at a time. A [Store] is safe for concurrent use.
package store
