package grpcapi

import (
	"context"
	"math"

	"google.golang.org/grpc"

	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

type ledgers struct {
	scalev1.UnimplementedLedgerServiceServer
	*Server
}

// checkpointOf is the API's form of a signed note, which the store has made.
func (s *Server) checkpointOf(note []byte) *scalev1.Checkpoint {
	c, _, err := ledger.ParseCheckpointUnverified(note)
	if err != nil {
		return &scalev1.Checkpoint{Note: note}
	}
	return &scalev1.Checkpoint{Origin: c.Origin, Size: c.Size, Root: c.Root[:], Note: note}
}

// GetHead implements LedgerServiceServer.
func (l *ledgers) GetHead(ctx context.Context, req *scalev1.GetHeadRequest) (*scalev1.GetHeadResponse, error) {
	if req.GetName() != "" {
		if err := checkName("name", req.GetName()); err != nil {
			return nil, err
		}
	}
	h, err := l.store.Head(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	return &scalev1.GetHeadResponse{Checkpoint: l.checkpoint(h.Published), Vkey: h.VerifierKey, Policy: h.Policy, Newest: h.Newest}, nil
}

// GetEntry implements LedgerServiceServer.
func (l *ledgers) GetEntry(ctx context.Context, req *scalev1.GetEntryRequest) (*scalev1.GetEntryResponse, error) {
	i := req.GetIndex()
	if i < 0 {
		return nil, invalidf("index", "%d, must be 0 or more", i)
	}
	if size := l.store.Published().Size; i >= size {
		return nil, inField("index", notFoundf("entry :%d of a ledger of %d", i, size))
	}
	for e, err := range l.store.Entries(ctx, i, i+1) {
		if err != nil {
			return nil, err
		}
		return &scalev1.GetEntryResponse{Entry: protoLedgerEntry(&e)}, nil
	}
	return nil, inField("index", notFoundf("entry :%d", i))
}

// StreamEntries implements LedgerServiceServer.
func (l *ledgers) StreamEntries(req *scalev1.StreamEntriesRequest, ss grpc.ServerStreamingServer[scalev1.StreamEntriesResponse]) error {
	ctx := ss.Context()
	start, end, size := req.GetStart(), int64(math.MaxInt64), l.store.Published().Size
	if !req.GetFollow() {
		end = size
	}
	if req.End != nil {
		end = req.GetEnd()
	}
	switch {
	case start < 0 || start > size:
		return invalidf("start", "%d, the ledger has %d entries", start, size)
	case end < start:
		return invalidf("end", "%d is below %d", end, start)
	case end > size && !req.GetFollow():
		return invalidf("end", "%d, the ledger has %d entries", end, size)
	}
	b := entryBatch{l: l, ctx: ctx, send: ss.Send}
	if !req.GetFollow() {
		for e, err := range l.store.Entries(ctx, start, end) {
			if err == nil {
				err = b.add(&e)
			}
			if err != nil {
				return err
			}
		}
		return b.flush(nil)
	}
	if start == end {
		return nil
	}
	for e, err := range l.store.Follow(ctx, start) {
		if err == nil {
			err = b.add(&e)
		}
		if err != nil {
			return err
		}
		if p := l.store.Published(); e.Index+1 == end || e.Index+1 == p.Size {
			if e.Index+1 != p.Size {
				p = store.Published{} // the end that was asked for, behind the newest
			}
			if err := b.flush(&p); err != nil || e.Index+1 == end {
				return err
			}
		}
	}
	return nil
}

// An entryBatch gathers entries into messages.
type entryBatch struct {
	l       *ledgers
	ctx     context.Context // of the call
	send    func(*scalev1.StreamEntriesResponse) error
	entries []*scalev1.LedgerEntry
	bytes   int
	large   bool // there is room for batchRoom
}

// batchBytes is how many bytes of blocks go into one message. What is said of an entry
// besides its block is at most another three times that.
const batchBytes = 128 << 10

// batchRoom is what a batch and its message take. Small ones, as those of a caller who
// follows, wait with nothing reserved.
const batchRoom = 8 * batchBytes

func (b *entryBatch) add(e *store.LedgerEntry) error {
	b.entries = append(b.entries, protoLedgerEntry(e))
	b.bytes += len(e.Block)
	if b.bytes > smallAnswer/4 && !b.large {
		if err := b.l.reserve(b.ctx, batchRoom); err != nil {
			return err
		}
		b.large = true
	}
	if b.bytes < batchBytes {
		return nil
	}
	return b.flush(nil)
}

// flush sends what is there, with the checkpoint that the caller has caught up with, if
// there is one.
func (b *entryBatch) flush(p *store.Published) error {
	m := &scalev1.StreamEntriesResponse{Entries: b.entries}
	if p != nil && p.Size > 0 {
		m.Checkpoint = b.l.checkpoint(*p)
	}
	if len(m.Entries) == 0 && m.Checkpoint == nil {
		return nil
	}
	b.entries, b.bytes = nil, 0
	if b.large {
		b.large = false
		defer accountOf(b.ctx).release()
	}
	return b.send(m)
}

// GetInclusionProof implements LedgerServiceServer.
func (l *ledgers) GetInclusionProof(ctx context.Context, req *scalev1.GetInclusionProofRequest) (*scalev1.GetInclusionProofResponse, error) {
	p := l.store.Published()
	size := p.Size
	if req.Size != nil {
		size = req.GetSize()
	}
	if size < 1 || size > p.Size {
		return nil, invalidf("size", "%d, the ledger has %d entries", size, p.Size)
	}
	if i := req.GetIndex(); i < 0 || i >= size {
		return nil, invalidf("index", "%d, the tree has %d entries", i, size)
	}
	in, err := l.store.Inclusion(ctx, req.GetIndex(), size)
	if err != nil {
		return nil, err
	}
	resp := &scalev1.GetInclusionProofResponse{Leaf: in.Leaf[:], Hashes: protoHashes(in.Hashes), Size: size, Root: in.Root[:]}
	if size == p.Size {
		resp.Checkpoint = l.checkpoint(p)
	}
	return resp, nil
}

// GetConsistencyProof implements LedgerServiceServer.
func (l *ledgers) GetConsistencyProof(ctx context.Context, req *scalev1.GetConsistencyProofRequest) (*scalev1.GetConsistencyProofResponse, error) {
	p := l.store.Published()
	oldSize, size := req.GetOldSize(), p.Size
	if req.Size != nil {
		size = req.GetSize()
	}
	switch {
	case size < 1 || size > p.Size:
		return nil, invalidf("size", "%d, the ledger has %d entries", size, p.Size)
	case oldSize < 1 || oldSize > size:
		return nil, invalidf("old_size", "%d, must be 1 to %d", oldSize, size)
	}
	hashes, err := l.store.Consistency(ctx, oldSize, size)
	if err != nil {
		return nil, err
	}
	oldRoot, err := l.store.RootAt(ctx, oldSize)
	if err != nil {
		return nil, err
	}
	root, err := l.store.RootAt(ctx, size)
	if err != nil {
		return nil, err
	}
	resp := &scalev1.GetConsistencyProofResponse{Hashes: protoHashes(hashes), OldRoot: oldRoot[:], Root: root[:], Size: size}
	if size == p.Size {
		resp.Checkpoint = l.checkpoint(p)
	}
	return resp, nil
}

func protoHashes[H ~[32]byte](hashes []H) [][]byte {
	var out [][]byte
	for _, h := range hashes {
		out = append(out, h[:])
	}
	return out
}

// logFileBytes is what a file of the log has at most: a bundle of the largest entries.
const logFileBytes = ledger.TileWidth * (2 + ledger.MaxEntry)

// ExportLog implements LedgerServiceServer.
func (l *ledgers) ExportLog(_ *scalev1.ExportLogRequest, ss grpc.ServerStreamingServer[scalev1.ExportLogResponse]) error {
	ctx := ss.Context()
	if err := l.reserve(ctx, logFileBytes+streamBytes); err != nil {
		return err
	}
	for f, err := range l.store.LogFiles(ctx) {
		if err != nil {
			return err
		}
		m := &scalev1.ExportLogResponse{Path: f.Path}
		for data := f.Data; m != nil; {
			m.Data = data[:min(len(data), l.lim.PieceBytes, pieceSize)]
			if err := ss.Send(m); err != nil {
				return err
			}
			if data = data[len(m.Data):]; len(data) == 0 {
				break
			}
			m = &scalev1.ExportLogResponse{}
		}
	}
	return nil
}
