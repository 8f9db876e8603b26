package grpcapi

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// What the engine has, as the API says it.

func protoKind(k dag.Kind) scalev1.Kind {
	switch k {
	case dag.KindFile:
		return scalev1.Kind_KIND_FILE
	case dag.KindLink:
		return scalev1.Kind_KIND_LINK
	case dag.KindDir:
		return scalev1.Kind_KIND_DIRECTORY
	}
	return scalev1.Kind_KIND_UNSPECIFIED
}

func protoTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func protoDataset(d *store.Dataset) *scalev1.Dataset {
	p := &scalev1.Dataset{
		Name: d.Name, Version: uint32(d.Version), Cid: d.CID.String(), Kind: protoKind(d.Kind), Profile: d.Profile,
		Size: d.Size, Files: d.Files, Leaves: d.Leaves, Chunks: d.Chunks, NewBytes: d.NewBytes, StoredBytes: d.Stored,
		Commitment: d.Commitment[:], Times: d.Times, Entry: d.Entry, EntryCid: d.EntryCID.String(),
		Previous: d.Previous, Time: protoTime(d.Time), Curator: d.Curator[:],
	}
	for _, c := range d.Parents {
		p.Parents = append(p.Parents, c.String())
	}
	return p
}

func protoRemoval(r *store.Removal) *scalev1.Removal {
	return &scalev1.Removal{
		Name: r.Name, Version: uint32(r.Version), Entry: r.Entry, EntryCid: r.EntryCID.String(), Time: protoTime(r.Time), Curator: r.Curator[:],
	}
}

func protoEntry(e *store.Entry) *scalev1.TreeEntry {
	p := &scalev1.TreeEntry{
		Path: []byte(e.Path), Kind: protoKind(e.Info.Kind), Mode: e.Info.Attr.Mode, Mtime: protoTime(e.Info.Attr.Mtime),
		Target: []byte(e.Info.Target), Cid: e.CID.String(),
	}
	switch e.Info.Kind {
	case dag.KindFile:
		p.Size = e.Info.Size
	case dag.KindLink:
		p.Mode = 0
	}
	return p
}

// objectEntry is an object as an entry of what holds it.
func objectEntry(o *store.Object, path string) *scalev1.TreeEntry {
	return protoEntry(&store.Entry{Path: path, CID: o.CID, Info: o.Info})
}

func (s *Server) checkpoint(p store.Published) *scalev1.Checkpoint {
	return &scalev1.Checkpoint{Origin: s.store.Origin(), Size: p.Size, Root: p.Root[:], Note: p.Checkpoint}
}

func protoLedgerEntry(e *store.LedgerEntry) *scalev1.LedgerEntry {
	p := &scalev1.LedgerEntry{
		Index: e.Index, Cid: e.CID.String(), Block: e.Block, Kind: e.Entry.Kind.String(), Name: e.Entry.Name,
		Time: protoTime(e.Entry.Time), Curator: e.Entry.Curator[:], Curators: protoKeys(e.Entry.Curators),
	}
	if e.Entry.Root.Defined() {
		p.Root = e.Entry.Root.String()
	}
	return p
}

func protoKeys(keys []ledger.CuratorKey) [][]byte {
	var out [][]byte
	for _, k := range keys {
		out = append(out, k[:])
	}
	return out
}

func protoPolicy(p *store.PolicyInfo) *scalev1.Policy {
	out := &scalev1.Policy{Entry: p.Entry, Curators: protoKeys(p.Curators)}
	if p.Own != (ledger.CuratorKey{}) {
		out.Own = p.Own[:]
	}
	return out
}
