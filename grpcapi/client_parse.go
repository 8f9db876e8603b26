package grpcapi

import (
	"crypto/ed25519"
	"crypto/sha256"
	"math"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// What a node sends becomes values of package store here, or an error of ErrNode.

// A parser remembers the first thing that makes no sense.
type parser struct{ err error }

func (p *parser) failf(format string, args ...any) {
	if p.err == nil {
		p.err = nodeErrorf(format, args...)
	}
}

func (p *parser) cid(what, s string) cid.Cid {
	// CIDs of this API are 59 characters; what is longer is not worth decoding.
	if len(s) <= 128 {
		if c, err := cid.Decode(s); err == nil && c.String() == s {
			if _, err := dag.DigestOf(c); err == nil {
				return c
			}
		}
	}
	p.failf("%s: %.128q is not a CID", what, s)
	return cid.Undef
}

func (p *parser) hash(what string, b []byte) (h [sha256.Size]byte) {
	if len(b) != len(h) {
		p.failf("%s: %d bytes, not %d", what, len(b), len(h))
		return h
	}
	return [sha256.Size]byte(b)
}

func (p *parser) curator(b []byte) ledger.CuratorKey {
	if len(b) != ed25519.PublicKeySize {
		p.failf("curator: %d bytes, not %d", len(b), ed25519.PublicKeySize)
		return ledger.CuratorKey{}
	}
	return ledger.CuratorKey(b)
}

func (p *parser) time(what string, t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	if err := t.CheckValid(); err != nil {
		p.failf("%s: %v", what, err)
		return time.Time{}
	}
	return t.AsTime()
}

func (p *parser) name(s string) string {
	if len(s) > ledger.MaxName || ledger.CheckName(s) != nil {
		p.failf("%.200q is not a name", s)
		return ""
	}
	return s
}

func (p *parser) index(what string, i, from int64) int64 {
	if i < from || i >= ledger.MaxSize {
		p.failf("%s %d", what, i)
		return from
	}
	return i
}

func (p *parser) version(v uint32) int {
	if v == 0 || v > math.MaxInt32 {
		p.failf("version %d", v)
	}
	return int(v)
}

func (p *parser) kind(k scalev1.Kind) dag.Kind {
	switch k {
	case scalev1.Kind_KIND_FILE:
		return dag.KindFile
	case scalev1.Kind_KIND_LINK:
		return dag.KindLink
	case scalev1.Kind_KIND_DIRECTORY:
		return dag.KindDir
	}
	p.failf("kind %d", k)
	return dag.KindFile
}

// rootKind is that of a dataset. It is not known where the ledger was restored and the blocks
// were not given back.
func (p *parser) rootKind(k scalev1.Kind) dag.Kind {
	if k == scalev1.Kind_KIND_UNSPECIFIED {
		return 0
	}
	return p.kind(k)
}

// size is a number of bytes that the rest of the program can reckon with.
func (p *parser) size(what string, n uint64) uint64 {
	if n > math.MaxInt64 {
		p.failf("%s of %d bytes", what, n)
		return 0
	}
	return n
}

func (p *parser) dataset(d *scalev1.Dataset) store.Dataset {
	if d == nil {
		p.failf("the dataset is missing")
		return store.Dataset{}
	}
	out := store.Dataset{
		Name: p.name(d.GetName()), Version: p.version(d.GetVersion()), CID: p.cid("dataset", d.GetCid()),
		Kind: p.rootKind(d.GetKind()), Profile: d.GetProfile(), Size: p.size("dataset", d.GetSize()),
		Files: d.GetFiles(), Leaves: d.GetLeaves(), Chunks: d.GetChunks(), NewBytes: d.GetNewBytes(), Stored: d.GetStoredBytes(),
		Commitment: p.hash("commitment", d.GetCommitment()), Times: d.GetTimes(),
		Entry: p.index("entry", d.GetEntry(), 0), EntryCID: p.cid("entry", d.GetEntryCid()),
		Previous: p.index("previous entry", d.GetPrevious(), -1), Time: p.time("time of the entry", d.GetTime()), Curator: p.curator(d.GetCurator()),
	}
	if out.Kind == dag.KindLink {
		p.failf("a dataset that is a link")
	}
	if len(out.Profile) == 0 || len(out.Profile) > ledger.MaxProfile || strings.ContainsFunc(out.Profile, unprintable) {
		p.failf("profile %.100q", out.Profile)
	}
	if n := len(d.GetParents()); n > ledger.MaxParents {
		p.failf("%d parents", n)
		return out
	}
	for _, c := range d.GetParents() {
		out.Parents = append(out.Parents, p.cid("parent", c))
	}
	return out
}

func unprintable(r rune) bool { return r < '!' || r > '~' }

func (p *parser) removal(r *scalev1.Removal) store.Removal {
	return store.Removal{
		Name: p.name(r.GetName()), Version: p.version(r.GetVersion()), Entry: p.index("entry", r.GetEntry(), 0),
		EntryCID: p.cid("entry", r.GetEntryCid()), Time: p.time("time of the entry", r.GetTime()), Curator: p.curator(r.GetCurator()),
	}
}

// entry reads an element of a tree. Its path is not looked at: see receivedOrder. Trees
// with the bytes of their files come without CIDs.
func (p *parser) entry(e *scalev1.TreeEntry, hasCID bool) store.Entry {
	if e == nil {
		p.failf("the entry is missing")
		return store.Entry{}
	}
	var id cid.Cid
	if hasCID {
		id = p.cid("entry", e.GetCid())
	}
	kind := p.kind
	if hasCID && len(e.GetPath()) == 0 {
		kind = p.rootKind
	}
	info := dag.Info{
		Kind: kind(e.GetKind()), CID: id, Size: p.size("file", e.GetSize()), SizeKnown: true,
		Attr: dag.Attr{Mode: e.GetMode(), Mtime: p.time("modification time", e.GetMtime())}, Target: string(e.GetTarget()),
	}
	if info.Attr.Mode > 0o7777 || info.Kind == dag.KindLink && info.Attr.Mode != 0 {
		p.failf("mode %o of a %v", info.Attr.Mode, info.Kind)
	}
	switch n := len(info.Target); {
	case info.Kind != dag.KindLink && n > 0, info.Kind == dag.KindLink && (n == 0 || n > dag.MaxTarget):
		p.failf("a %v with a target of %d bytes", info.Kind, n)
	case strings.IndexByte(info.Target, 0) >= 0:
		p.failf("link target %.100q", info.Target)
	case info.Kind != dag.KindFile && info.Size != 0:
		p.failf("a %v of %d bytes", info.Kind, info.Size)
	}
	if info.Kind == dag.KindLink {
		// As a DAG has it: what links are not asked for is not sent.
		info.Attr.Mode, info.Size = 0o777, uint64(len(info.Target))
	}
	return store.Entry{Path: string(e.GetPath()), CID: info.CID, Info: info}
}

func (p *parser) checkpoint(c *scalev1.Checkpoint) store.Published {
	if c == nil {
		p.failf("the checkpoint is missing")
		return store.Published{}
	}
	out := store.Published{Size: p.index("checkpoint of size", c.GetSize(), 0), Root: p.hash("root", c.GetRoot()), Checkpoint: c.GetNote()}
	if len(out.Checkpoint) > ledger.MaxCheckpoint {
		p.failf("a checkpoint of %d bytes", len(out.Checkpoint))
	}
	return out
}
