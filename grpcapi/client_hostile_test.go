package grpcapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/proof"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// drain returns the first error of an iterator.
func drain[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

// A tamper changes what a node sends.
type tamper = func(method string, n int, b []byte) ([][]byte, error)

// dropped leaves out a message of a method, doubled sends it twice, ended ends the call
// before it in good order.
func dropped(method string, at int) tamper { return times(method, at, 0) }
func doubled(method string, at int) tamper { return times(method, at, 2) }

func times(method string, at, count int) tamper {
	return func(called string, n int, b []byte) ([][]byte, error) {
		if called != method || n != at {
			return [][]byte{b}, nil
		}
		return slices.Repeat([][]byte{b}, count), nil
	}
}

func ended(method string, at int) tamper {
	return func(called string, n int, b []byte) ([][]byte, error) {
		if called == method && n >= at {
			return nil, io.EOF
		}
		return [][]byte{b}, nil
	}
}

// emptyData puts data that is explicitly empty into every part of a tree, or sends parts with
// nothing else in front of it.
func emptyData(method string, alone bool) tamper {
	empty := protowire.AppendBytes(protowire.AppendTag(nil, partDataField, protowire.BytesType), nil)
	return func(called string, n int, b []byte) ([][]byte, error) {
		if called != method {
			return [][]byte{b}, nil
		}
		var out []byte
		if alone {
			out = protowire.AppendBytes(protowire.AppendTag(nil, treePartsField, protowire.BytesType), empty)
			return [][]byte{out, b}, nil
		}
		err := wireFields(b, func(num protowire.Number, part []byte) error {
			out = protowire.AppendBytes(protowire.AppendTag(out, num, protowire.BytesType), append(part[:len(part):len(part)], empty...))
			return nil
		})
		return [][]byte{out}, err
	}
}

// Data that is explicitly empty is the same as none.
func TestClientTreeEmptyData(t *testing.T) {
	n := startClientNode(t)
	must(n.store.Put(t.Context(), []store.Input{{Name: "d", Path: testTree(t, 1<<20)}}, store.PutOptions{}))
	proxy := startGRPCProxy(t, n.addr)
	c := n.dial(proxy.addr)
	d := must(c.Resolve(t.Context(), "d"))
	var want, got visits
	if err := c.GetTree(t.Context(), d, &want); err != nil {
		t.Fatal(err)
	}
	proxy.set(emptyData(scalev1.DatasetService_GetTree_FullMethodName, false), nil)
	if err := c.GetTree(t.Context(), d, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v", err)
	}
}

// TestClientHostileNode has a node lie in every answer. The client must see it, and say so.
func TestClientHostileNode(t *testing.T) {
	n := startClientNode(t)
	ctx := t.Context()
	tree := testTree(t, 1<<20)
	must(n.store.Put(ctx, []store.Input{{Name: "d", Path: tree}, {Name: "e", Reader: strings.NewReader("e")}}, store.PutOptions{}))
	must(n.store.Put(ctx, []store.Input{{Name: "e", Reader: strings.NewReader("other")}}, store.PutOptions{}))
	proxy := startGRPCProxy(t, n.addr)
	c := n.dial(proxy.addr)
	d, big := must(c.Resolve(ctx, "d")), must(c.Resolve(ctx, "d/big"))
	e := must(c.Resolve(ctx, "e"))
	file := putFile(t, "f", noiseBytes(3, 1<<20))

	stat := func(ref string) func() error {
		return func() error { _, err := c.Resolve(ctx, ref); return err }
	}
	get := func() error { _, err := c.Get(ctx, big, nil, io.Discard); return err }
	getTree := func() error { return c.GetTree(ctx, d, &visits{}) }
	car := func() error { return c.ExportCAR(ctx, d, io.Discard) }
	list := func() error { return drain(c.List(ctx, d)) }
	datasets := func() error { return drain(c.Datasets(ctx)) }
	history := func() error { return drain(c.History(ctx, "e")) }
	entries := func() error { return drain(c.Entries(ctx, 0, 4)) }
	head := func() error { _, err := c.Head(ctx, ""); return err }
	consistency := func() error { _, err := c.Consistency(ctx, 2, 4); return err }
	prove := func() error { _, err := c.Prove(ctx, big, store.ProveOptions{}); return err }
	policy := func() error { _, err := c.Policy(ctx); return err }
	exportLog := func() error { return c.ExportLog(ctx, filepath.Join(t.TempDir(), "log")) }
	put := func() error { _, err := c.Put(ctx, []store.Input{file}, store.PutOptions{}); return err }
	dial := func() error {
		c, err := Dial(ctx, proxy.addr, DialOptions{})
		if err == nil {
			c.Close()
		}
		return err
	}
	challenge := func() error {
		seed := make([]byte, 32)
		a, err := c.Challenge(ctx, d, seed, 20)
		if err != nil {
			return err
		}
		trust := proof.Trust{Policy: must(proof.TrustKey(c.VerifierKey()))}
		_, err = audit.Verify(audit.Challenge{Seed: seed, Count: 20}, a.Head, a.Samples, trust, nil)
		return err
	}

	const (
		statM, getM, treeM, carM = scalev1.DatasetService_Stat_FullMethodName, scalev1.DatasetService_Get_FullMethodName, scalev1.DatasetService_GetTree_FullMethodName, scalev1.DatasetService_ExportCar_FullMethodName
		listM, datasetsM         = scalev1.DatasetService_ListTree_FullMethodName, scalev1.DatasetService_ListDatasets_FullMethodName
		versionsM, entriesM      = scalev1.DatasetService_ListVersions_FullMethodName, scalev1.LedgerService_StreamEntries_FullMethodName
		headM, consistencyM      = scalev1.LedgerService_GetHead_FullMethodName, scalev1.LedgerService_GetConsistencyProof_FullMethodName
		proveM, logM             = scalev1.ProofService_Prove_FullMethodName, scalev1.LedgerService_ExportLog_FullMethodName
		challengeM, infoM        = scalev1.AuditService_Challenge_FullMethodName, scalev1.NodeService_GetInfo_FullMethodName
		missingM, uploadM        = scalev1.BlockService_FindMissing_FullMethodName, scalev1.BlockService_Upload_FullMethodName
		commitM, curatorsM       = scalev1.BlockService_Commit_FullMethodName, scalev1.CuratorService_ListCurators_FullMethodName
	)
	onStat := func(change func(m *scalev1.StatResponse)) tamper {
		return onlyThat(t, statM, func(_ int, m *scalev1.StatResponse) { change(m) })
	}
	// onPart changes the part of a tree with the entry of a path.
	onPart := func(path string, change func(p *scalev1.TreePart)) tamper {
		return onlyThat(t, treeM, func(_ int, m *scalev1.GetTreeResponse) {
			for _, p := range m.Parts {
				if p.GetEntry() != nil && string(p.Entry.Path) == path {
					change(p)
				}
			}
		})
	}
	onList := func(change func(m *scalev1.ListTreeResponse)) tamper {
		return onlyThat(t, listM, func(_ int, m *scalev1.ListTreeResponse) { change(m) })
	}
	for _, lie := range []struct {
		what string
		call func() error
		lie  tamper
	}{
		{"another name", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Name = "x" })},
		{"a name that is none", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Name = "../x" })},
		{"another version", stat("e@1"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Version = 2 })},
		{"another entry", stat(":1"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Entry = 2 })},
		{"an entry below 0", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Entry = -1 })},
		{"another CID", stat(d.CID.String()), onStat(func(m *scalev1.StatResponse) { m.Dataset.Cid = e.CID.String(); m.Entry.Cid = e.CID.String() })},
		{"a CID that is none", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Cid = strings.Repeat("b", 1<<20) })},
		{"another path", stat("d/big"), onStat(func(m *scalev1.StatResponse) { m.Entry.Path = []byte("text") })},
		{"a file larger than all", stat("d/big"), onStat(func(m *scalev1.StatResponse) { m.Entry.Size = 1 << 40 })},
		{"a size that is none", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Size = 1 << 63 })},
		{"an odd kind", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Kind = 77 })},
		{"an odd mode", stat("d/big"), onStat(func(m *scalev1.StatResponse) { m.Entry.Mode = 1 << 20 })},
		{"no dataset", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset = nil })},
		{"no entry", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Entry = nil })},
		{"a short commitment", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Commitment = []byte{1} })},
		{"a long profile", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Profile = strings.Repeat("p", 1000) })},
		{"many parents", stat("d"), onStat(func(m *scalev1.StatResponse) { m.Dataset.Parents = slices.Repeat([]string{d.CID.String()}, 1000) })},

		{"fewer bytes", get, ended(getM, 1)},
		{"no bytes", get, ended(getM, 0)},
		{"more bytes", get, doubled(getM, 0)},
		{"an empty piece", get, onlyThat(t, getM, func(_ int, m *scalev1.GetResponse) { m.Data = nil })},

		{"a path upwards", getTree, onPart("a/b/c", func(p *scalev1.TreePart) { p.Entry.Path = []byte("a/../../evil") })},
		{"an absolute path", getTree, onPart("a.txt", func(p *scalev1.TreePart) { p.Entry.Path = []byte("/etc/passwd") })},
		{"a path below a link", getTree, onPart("many/000", func(p *scalev1.TreePart) { p.Entry.Path = []byte("link/x") })},
		{"a path twice", getTree, onPart("many/001", func(p *scalev1.TreePart) { p.Entry.Path = []byte("many/000") })},
		{"a path too early", getTree, onPart("many/001", func(p *scalev1.TreePart) { p.Entry.Path = []byte("many/999") })},
		{"a directory that did not come", getTree, onPart("many/001", func(p *scalev1.TreePart) { p.Entry.Path = []byte("many/000x/y") })},
		{"a file of another size", getTree, onPart("many/001", func(p *scalev1.TreePart) { p.Entry.Size++ })},
		{"a huge file", getTree, onPart("many/001", func(p *scalev1.TreePart) { p.Entry.Size = 1 << 50 })},
		{"a link without a target", getTree, onPart("link", func(p *scalev1.TreePart) { p.Entry.Target = nil })},
		{"a link with NUL", getTree, onPart("link", func(p *scalev1.TreePart) { p.Entry.Target = []byte("a\x00b") })},
		{"another root", getTree, onPart("", func(p *scalev1.TreePart) { p.Entry.Kind = scalev1.Kind_KIND_FILE })},
		{"a tree that ends early", getTree, ended(treeM, 1)},
		{"no tree", getTree, ended(treeM, 0)},
		{"parts of a tree with empty data alone", getTree, emptyData(treeM, true)},
		{"a part of a tree that is nothing", getTree, onPart("big", func(p *scalev1.TreePart) { p.Entry = nil })},

		{"an entry less", list, onList(func(m *scalev1.ListTreeResponse) { m.Entries = m.Entries[:len(m.Entries)-1] })},
		{"an entry twice", list, onList(func(m *scalev1.ListTreeResponse) { m.Entries = append(m.Entries, m.Entries[len(m.Entries)-1]) })},
		{"entries swapped", list, onList(func(m *scalev1.ListTreeResponse) { m.Entries[3], m.Entries[4] = m.Entries[4], m.Entries[3] })},
		{"empty pages for ever", list, onList(func(m *scalev1.ListTreeResponse) { m.Entries, m.NextPageToken = nil, "again" })},
		{"datasets for ever", datasets, onlyThat(t, datasetsM, func(_ int, m *scalev1.ListDatasetsResponse) {
			m.NextPageToken = ""
			m.Datasets = append(m.Datasets, m.Datasets...)
		})},
		{"empty pages of datasets", datasets, onlyThat(t, datasetsM, func(_ int, m *scalev1.ListDatasetsResponse) { m.Datasets, m.NextPageToken = nil, "again" })},
		{"versions of another name", history, onlyThat(t, versionsM, func(_ int, m *scalev1.ListVersionsResponse) { m.Versions[0].GetDataset().Name = "d" })},
		{"versions backwards", history, onlyThat(t, versionsM, func(_ int, m *scalev1.ListVersionsResponse) { slices.Reverse(m.Versions) })},
		{"a version of nothing", history, onlyThat(t, versionsM, func(_ int, m *scalev1.ListVersionsResponse) { m.Versions[0] = &scalev1.Version{} })},

		{"a block of other bytes", car, onlyThat(t, carM, func(n int, m *scalev1.ExportCarResponse) { m.Data[len(m.Data)/2] ^= 1 })},
		{"a CAR that ends early", car, ended(carM, 1)},
		{"a CAR that goes on", car, doubled(carM, 0)},
		{"a CAR that is nothing", car, ended(carM, 0)},
		{"a CAR of a huge section", car, onlyThat(t, carM, func(n int, m *scalev1.ExportCarResponse) { m.Data = append([]byte{0xff, 0xff, 0xff, 0x7f}, m.Data...) })},

		{"an entry's block changed", entries, onlyThat(t, entriesM, func(_ int, m *scalev1.StreamEntriesResponse) { m.Entries[0].Block[4] ^= 0x80 })},
		{"an entry at another index", entries, onlyThat(t, entriesM, func(_ int, m *scalev1.StreamEntriesResponse) { m.Entries[0].Index++ })},
		{"fewer entries", entries, onlyThat(t, entriesM, func(_ int, m *scalev1.StreamEntriesResponse) { m.Entries = m.Entries[:1] })},
		{"a checkpoint of another size", head, onlyThat(t, headM, func(_ int, m *scalev1.GetHeadResponse) { m.Checkpoint.Size++ })},
		{"a checkpoint of another root", head, onlyThat(t, headM, func(_ int, m *scalev1.GetHeadResponse) { m.Checkpoint.Root[0] ^= 1 })},
		{"a forged checkpoint", head, onlyThat(t, headM, func(_ int, m *scalev1.GetHeadResponse) { m.Checkpoint.Note[20] ^= 1 })},
		{"another key", head, onlyThat(t, headM, func(_ int, m *scalev1.GetHeadResponse) { m.Vkey = "x" })},
		{"an entry behind the end", head, onlyThat(t, headM, func(_ int, m *scalev1.GetHeadResponse) { m.Policy = 99 })},
		{"a changed consistency proof", consistency, onlyThat(t, consistencyM, func(_ int, m *scalev1.GetConsistencyProofResponse) { m.Hashes[0][0] ^= 1 })},
		{"a long consistency proof", consistency, onlyThat(t, consistencyM, func(_ int, m *scalev1.GetConsistencyProofResponse) { m.Hashes = slices.Repeat(m.Hashes[:1], 10_000) })},
		{"a policy of nobody", policy, onlyThat(t, curatorsM, func(_ int, m *scalev1.ListCuratorsResponse) { m.Policy.Curators = nil })},
		{"a curator twice", policy, onlyThat(t, curatorsM, func(_ int, m *scalev1.ListCuratorsResponse) {
			m.Policy.Curators = append(m.Policy.Curators, m.Policy.Curators[0])
		})},
		{"a key of another log", dial, onlyThat(t, infoM, func(_ int, m *scalev1.GetInfoResponse) { m.Origin = "other" })},
		{"no key", dial, onlyThat(t, infoM, func(_ int, m *scalev1.GetInfoResponse) { m.Vkey = "" })},

		{"a changed proof", prove, onlyThat(t, proveM, func(_ int, m *scalev1.ProveResponse) {
			if len(m.Proof) > 0 {
				m.Proof[len(m.Proof)/3] ^= 1
			}
		})},
		{"a short proof", prove, onlyThat(t, proveM, func(_ int, m *scalev1.ProveResponse) { m.Proof = m.Proof[:len(m.Proof)/2] })},
		{"an empty proof", prove, ended(proveM, 0)},
		{"a proof twice", prove, doubled(proveM, 0)},

		{"a tile that is changed", exportLog, onlyThat(t, logM, func(n int, m *scalev1.ExportLogResponse) {
			if strings.HasPrefix(m.Path, "tile/0") {
				m.Data[5] ^= 1
			}
		})},
		{"an entry of the log that is changed", exportLog, onlyThat(t, logM, func(n int, m *scalev1.ExportLogResponse) {
			if strings.HasPrefix(m.Path, "tile/entries") {
				m.Data[50] ^= 1
			}
		})},
		{"a file of the log elsewhere", exportLog, onlyThat(t, logM, func(n int, m *scalev1.ExportLogResponse) { m.Path = "../../" + m.Path })},
		{"a file of the log less", exportLog, dropped(logM, 1)},
		{"a file of the log twice", exportLog, doubled(logM, 0)},
		{"a log without its checkpoint", exportLog, ended(logM, 2)},
		{"no log", exportLog, ended(logM, 0)},

		{"an answer about another entry", challenge, onlyThat(t, challengeM, func(n int, m *scalev1.ChallengeResponse) {
			if m.Head != nil {
				m.Head.Entry = bytes.Clone(m.Head.Entry[:len(m.Head.Entry)-1])
			}
		})},
		{"a sample less", challenge, ended(challengeM, 3)},
		{"a sample twice", challenge, doubled(challengeM, 3)},
		{"no answer", challenge, ended(challengeM, 0)},

		{"missing chunks that were not asked for", put, onlyThat(t, missingM, func(_ int, m *scalev1.FindMissingResponse) { m.Missing = append(m.Missing, 1<<20) })},
		{"missing chunks twice", put, onlyThat(t, missingM, func(_ int, m *scalev1.FindMissingResponse) { m.Missing = append(m.Missing, m.Missing...) })},
		{"an upload without an answer", put, ended(uploadM, 0)},
		{"another dataset recorded", put, onlyThat(t, commitM, func(_ int, m *scalev1.CommitResponse) { m.Results[0].Dataset.Cid = e.CID.String() })},
		{"another commitment recorded", put, onlyThat(t, commitM, func(_ int, m *scalev1.CommitResponse) { m.Results[0].Dataset.Commitment[3] ^= 1 })},
		{"nothing recorded", put, onlyThat(t, commitM, func(_ int, m *scalev1.CommitResponse) { m.Results = nil })},
		{"a recorded checkpoint that is forged", put, onlyThat(t, commitM, func(_ int, m *scalev1.CommitResponse) { m.Checkpoint.Note[30] ^= 1 })},
	} {
		proxy.set(lie.lie, nil)
		if err := lie.call(); !errors.Is(err, ErrNode) && !errors.Is(err, audit.ErrRefused) {
			t.Errorf("%s: %v", lie.what, err)
		}
	}
	// Whoever audits sees what is wrong with samples himself.
	for what, change := range map[string]func(s *scalev1.AuditSample){
		"other bytes":      func(s *scalev1.AuditSample) { s.Data[0] ^= 1 },
		"no bytes":         func(s *scalev1.AuditSample) { s.Data = nil },
		"another position": func(s *scalev1.AuditSample) { s.Position++ },
		"another file":     func(s *scalev1.AuditSample) { s.Path = append(s.Path, 'x') },
		"another proof":    func(s *scalev1.AuditSample) { s.Proof[len(s.Proof)/2] ^= 1 },
		"another draw":     func(s *scalev1.AuditSample) { s.Draw++ },
	} {
		proxy.set(onlyThat(t, challengeM, func(_ int, m *scalev1.ChallengeResponse) {
			if m.Sample != nil {
				change(m.Sample)
			}
		}), nil)
		if err := challenge(); !errors.Is(err, audit.ErrRefused) {
			t.Errorf("a sample with %s: %v", what, err)
		}
	}
	proxy.set(nil, nil)
	for _, call := range []func() error{stat("d"), get, getTree, list, datasets, history, car, entries, head, consistency, policy, dial, prove, exportLog, challenge} {
		if err := call(); err != nil {
			t.Errorf("the truth: %v", err)
		}
	}
	n.sound()
}

// TestClientEndlessNode has a node never end its streams: each is given up on by itself.
func TestClientEndlessNode(t *testing.T) {
	n := startClientNode(t)
	ctx := t.Context()
	must(n.store.Put(ctx, []store.Input{{Name: "d", Path: testTree(t, 1<<16)}}, store.PutOptions{}))
	proxy := startGRPCProxy(t, n.addr)
	c := n.dial(proxy.addr)
	d, file := must(c.Resolve(ctx, "d")), must(c.Resolve(ctx, "d/big"))
	zeros := make([]byte, 1<<20)
	for method, stream := range map[string]struct {
		call func() error
		more []proto.Message
	}{
		scalev1.DatasetService_Get_FullMethodName: {
			func() error { _, err := c.Get(ctx, file, nil, io.Discard); return err },
			[]proto.Message{&scalev1.GetResponse{Data: zeros}, &scalev1.GetResponse{}},
		},
		scalev1.DatasetService_GetTree_FullMethodName: {
			func() error { return c.GetTree(ctx, d, &visits{}) },
			[]proto.Message{
				&scalev1.GetTreeResponse{}, &scalev1.GetTreeResponse{Parts: []*scalev1.TreePart{{}}}, &scalev1.GetTreeResponse{Parts: []*scalev1.TreePart{{Data: zeros}}},
				&scalev1.GetTreeResponse{Parts: []*scalev1.TreePart{{Entry: &scalev1.TreeEntry{Path: []byte("zzz"), Kind: scalev1.Kind_KIND_DIRECTORY}}}},
			},
		},
		scalev1.DatasetService_ExportCar_FullMethodName: {
			func() error { return c.ExportCAR(ctx, d, io.Discard) },
			[]proto.Message{&scalev1.ExportCarResponse{}, &scalev1.ExportCarResponse{Data: zeros}},
		},
		scalev1.ProofService_Prove_FullMethodName: {
			func() error { _, err := c.Prove(ctx, file, store.ProveOptions{}); return err },
			[]proto.Message{&scalev1.ProveResponse{}, &scalev1.ProveResponse{Proof: zeros}},
		},
		scalev1.LedgerService_ExportLog_FullMethodName: {
			func() error { return drain(c.LogFiles(ctx)) },
			[]proto.Message{&scalev1.ExportLogResponse{}, &scalev1.ExportLogResponse{Path: "checkpoint"}, &scalev1.ExportLogResponse{Data: zeros}},
		},
		scalev1.AuditService_Challenge_FullMethodName: {
			func() error {
				a, err := c.Challenge(ctx, d, make([]byte, 32), 2)
				if err != nil {
					return err
				}
				return drain(a.Samples)
			},
			[]proto.Message{&scalev1.ChallengeResponse{Sample: &scalev1.AuditSample{}}, &scalev1.ChallengeResponse{}},
		},
		scalev1.LedgerService_StreamEntries_FullMethodName: {
			func() error { return drain(c.Entries(ctx, 0, 2)) },
			[]proto.Message{&scalev1.StreamEntriesResponse{Entries: []*scalev1.LedgerEntry{{Index: 2}}}, &scalev1.StreamEntriesResponse{}},
		},
	} {
		for i, m := range stream.more {
			b := must(proto.Marshal(m))
			proxy.set(nil, func(called string, _ int) [][]byte {
				if called != method {
					return nil
				}
				return [][]byte{b}
			})
			if err := stream.call(); !errors.Is(err, ErrNode) {
				t.Errorf("%s for ever, %d: %v", method, i, err)
			}
		}
	}
	n.sound()
}

// TestClientFlippedBits flips bits of what a node sends. What the client hands on of trees,
// CARs, proofs and logs is then either what was put or an error.
func TestClientFlippedBits(t *testing.T) {
	n := startClientNode(t)
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "dir")
	for name, content := range map[string]string{"a": "alpha", "b/c": "charlie", "b/d": strings.Repeat("delta", 100)} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	must(n.store.Put(ctx, []store.Input{{Name: "d", Path: dir}}, store.PutOptions{}))
	proxy := startGRPCProxy(t, n.addr)
	c := n.dial(proxy.addr)
	d, file := must(c.Resolve(ctx, "d")), must(c.Resolve(ctx, "d/a"))
	calls := map[string]func() (any, error){
		scalev1.DatasetService_ExportCar_FullMethodName: func() (any, error) {
			var b bytes.Buffer
			err := c.ExportCAR(ctx, d, &b)
			return b.String(), err
		},
		scalev1.ProofService_Prove_FullMethodName: func() (any, error) {
			p, err := c.Prove(ctx, file, store.ProveOptions{})
			if err != nil {
				return nil, err
			}
			b, err := p.Format()
			return string(b), err
		},
		scalev1.LedgerService_ExportLog_FullMethodName: func() (any, error) {
			var all []string
			for f, err := range c.LogFiles(ctx) {
				if err != nil {
					return nil, err
				}
				all = append(all, fmt.Sprintf("%s %x", f.Path, f.Data))
			}
			return strings.Join(all, "\n"), nil
		},
	}
	for method, call := range calls {
		proxy.set(nil, nil)
		want, err := call()
		if err != nil {
			t.Fatal(err)
		}
		flips := 0
		for at := 0; ; at++ {
			if testing.Short() && at%7 != 0 {
				continue
			}
			// The proxy may still be at a call that the client has given up: each try has a
			// state of its own, and a lock.
			var mu sync.Mutex
			left, seen := at, false
			proxy.set(func(called string, n int, b []byte) ([][]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				if called == method && !seen {
					if left < len(b) {
						b, seen = bytes.Clone(b), true
						b[left] ^= 1 << (at % 8)
					} else {
						left -= len(b)
					}
				}
				return [][]byte{b}, nil
			}, nil)
			got, err := call()
			if err == nil && got != want {
				t.Errorf("%s: byte %d changed: something else is handed on", method, at)
			}
			mu.Lock()
			ended := !seen
			mu.Unlock()
			if ended {
				break
			}
			flips++
		}
		if flips < 50 {
			t.Errorf("%s: only %d bytes were changed", method, flips)
		}
	}
	n.sound()
}
