package ledger

import (
	"context"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// A Prover proves entries of one log, which only ever grows, and keeps hashes of the
// tree that it computed. It is safe for concurrent use if its TileReader is.
type Prover struct {
	r     TileReader
	known knownHashes
}

// NewProver returns a Prover that takes at most some 3 MB.
func NewProver(r TileReader) *Prover { return &Prover{r: r} }

// Inclusion is ProveInclusion.
func (p *Prover) Inclusion(ctx context.Context, size, index int64) (tlog.RecordProof, error) {
	h := newHashes(ctx, p.r, size)
	h.known = &p.known
	return proveInclusion(h, index)
}

// knownHashes keeps hashes by their index in tlog's storage. A stored hash is that of a
// complete subtree, so whatever is appended it stays what it is.
type knownHashes struct {
	mu      sync.Mutex
	byIndex map[int64]tlog.Hash
}

// maxKnown bounds them. Those of the upper levels, which many proofs share, are a few
// thousand even of a log of a million entries.
const maxKnown = 1 << 15

func (k *knownHashes) get(index int64) (h tlog.Hash, ok bool) {
	if k == nil {
		return h, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok = k.byIndex[index]
	return h, ok
}

func (k *knownHashes) put(index int64, h tlog.Hash) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byIndex == nil {
		k.byIndex = make(map[int64]tlog.Hash)
	}
	if len(k.byIndex) >= maxKnown {
		for other := range k.byIndex { // any one
			delete(k.byIndex, other)
			break
		}
	}
	k.byIndex[index] = h
}
