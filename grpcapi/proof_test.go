package grpcapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/koii-network/scale/dag/audit"
	"github.com/koii-network/scale/dag/proof"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// A proven is the answer to Prove, put together.
type proven struct {
	info        *scalev1.ProofInfo
	proof, data []byte
	messages    int
}

func (n *rawNode) prove(req *scalev1.ProveRequest) (proven, error) {
	var p proven
	messages, err := receive(n.proofs.Prove(n.ctx, req))
	if err != nil {
		return p, err
	}
	for i, m := range messages {
		if (m.GetInfo() != nil) != (i == 0) || len(m.GetProof()) > 0 && len(p.data) > 0 {
			return p, fmt.Errorf("message %d: %v", i, m)
		}
		p.info = cmpOr(p.info, m.GetInfo())
		p.proof, p.data = append(p.proof, m.GetProof()...), append(p.data, m.GetData()...)
	}
	p.messages = len(messages)
	if uint64(len(p.proof)) != p.info.GetProofSize() {
		return p, fmt.Errorf("%d bytes of proof, %d were announced", len(p.proof), p.info.GetProofSize())
	}
	return p, nil
}

func cmpOr[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// trust is that in the node's key.
func (n *rawNode) trust() proof.Trust {
	n.t.Helper()
	p, err := proof.TrustKey(n.store.VerifierKey())
	if err != nil {
		n.t.Fatal(err)
	}
	return proof.Trust{Policy: p}
}

func TestProve(t *testing.T) {
	n := newRawNode(t, limited(Limits{PieceBytes: 1 << 10}))
	data := noiseBytes(1, 1000)
	big := noiseBytes(2, 400_000)
	n.putParts(treeHeader("tree"), fileEntry("a", string(data)), linkEntry("l", "a"))
	parts := []*scalev1.PutRequest{fileHeader("big")}
	for b := range slices.Chunk(big, 1<<10) {
		parts = append(parts, dataPart(b))
	}
	n.putParts(parts...)
	n.putFile("empty", nil)
	for what, c := range map[string]struct {
		req   *scalev1.ProveRequest
		scope proof.Scope
		data  []byte
		path  string
	}{
		"dataset":        {&scalev1.ProveRequest{Ref: "tree"}, proof.ScopeDataset, nil, ""},
		"manifest":       {&scalev1.ProveRequest{Ref: "tree", Manifest: true}, proof.ScopeDataset, nil, ""},
		"file":           {&scalev1.ProveRequest{Ref: "tree/a"}, proof.ScopeFile, nil, "a"},
		"file with data": {&scalev1.ProveRequest{Ref: "tree", Path: []byte("a"), WithData: true}, proof.ScopeFile, data, "a"},
		"link":           {&scalev1.ProveRequest{Ref: "tree/l"}, proof.ScopeFile, nil, "l"},
		"one file":       {&scalev1.ProveRequest{Ref: "big", WithData: true}, proof.ScopeDataset, big, ""},
		"range":          {&scalev1.ProveRequest{Ref: "big", Range: &scalev1.ByteRange{Start: 100_000, End: ptr(uint64(100_001))}, WithData: true}, proof.ScopeRange, big, ""},
	} {
		got, err := n.prove(c.req)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		p, err := proof.Parse(got.proof)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		v, err := p.Verify(n.trust())
		if err != nil || v.Scope != c.scope || v.HasManifest != c.req.GetManifest() || string(got.info.GetEntry().GetPath()) != c.path {
			t.Errorf("%s: %+v, %v, %v", what, v, got.info, err)
			continue
		}
		if what == "link" && (got.info.GetStart() != 0 || got.info.GetEnd() != 0) {
			t.Errorf("%s: %v", what, got.info)
		}
		want := c.data
		if v.Range != nil {
			want = want[v.Range.Offset : v.Range.Offset+v.Range.Size()]
			if got.info.GetStart() != v.Range.Offset || got.info.GetEnd() != v.Range.Offset+v.Range.Size() || got.info.GetStart() > 100_000 || got.info.GetEnd() <= 100_000 {
				t.Errorf("%s: %v", what, got.info)
			}
			if err := v.CheckRange(bytes.NewReader(got.data)); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if !bytes.Equal(got.data, want) {
			t.Errorf("%s: %d bytes of data, want %d", what, len(got.data), len(want))
		}
		if len(got.proof) > 1<<10 && got.messages < 2 {
			t.Errorf("%s: %d bytes of proof in one message", what, len(got.proof))
		}
	}
	for what, c := range map[string]struct {
		req    *scalev1.ProveRequest
		reason scalev1.ErrorReason
		field  string
	}{
		"none":                {&scalev1.ProveRequest{Ref: "none"}, isNotFound, ""},
		"no path":             {&scalev1.ProveRequest{Ref: "tree/x"}, isNotFound, ""},
		"range of no byte":    {&scalev1.ProveRequest{Ref: "big", Range: &scalev1.ByteRange{Start: 400_000}}, isInvalid, ""},
		"range of no bytes":   {&scalev1.ProveRequest{Ref: "empty", Range: &scalev1.ByteRange{}}, isInvalid, ""},
		"range of a tree":     {&scalev1.ProveRequest{Ref: "tree", Range: &scalev1.ByteRange{}}, isInvalid, "range"},
		"range beyond":        {&scalev1.ProveRequest{Ref: "big", Range: &scalev1.ByteRange{Start: 400_001}}, isInvalid, "range.start"},
		"data of a link":      {&scalev1.ProveRequest{Ref: "tree/l", WithData: true}, isInvalid, "with_data"},
		"manifest of a file":  {&scalev1.ProveRequest{Ref: "tree/a", Manifest: true}, isInvalid, "manifest"},
		"manifest of a range": {&scalev1.ProveRequest{Ref: "big", Manifest: true, Range: &scalev1.ByteRange{}}, isInvalid, "manifest"},
	} {
		_, err := n.prove(c.req)
		if c.field == "" {
			refused(t, what, err, c.reason)
		} else {
			refusedField(t, what, err, c.reason, c.field)
		}
	}
}

func TestVerify(t *testing.T) {
	n := newRawNode(t, nil)
	data := noiseBytes(1, 300_000)
	d := n.putParts(treeHeader("tree"), fileEntry("a", string(data)), linkEntry("l", "target"))
	get := func(req *scalev1.ProveRequest) []byte {
		p, err := n.prove(req)
		if err != nil {
			t.Fatal(err)
		}
		return p.proof
	}
	whole, file, link := get(&scalev1.ProveRequest{Ref: "tree"}), get(&scalev1.ProveRequest{Ref: "tree/a"}), get(&scalev1.ProveRequest{Ref: "tree/l"})
	ranged, err := n.prove(&scalev1.ProveRequest{Ref: "tree/a", Range: &scalev1.ByteRange{Start: 9, End: ptr(uint64(10))}, WithData: true})
	if err != nil {
		t.Fatal(err)
	}
	key := n.store.VerifierKey()
	ofData := func(b []byte) *scalev1.VerifyRequest_Data { return &scalev1.VerifyRequest_Data{Data: b} }
	bad := bytes.Clone(data)
	bad[77]++
	for what, c := range map[string]struct {
		req   *scalev1.VerifyRequest
		scope string // "": refused
	}{
		"dataset":      {&scalev1.VerifyRequest{Proof: whole, Policy: key}, "dataset"},
		"cid":          {&scalev1.VerifyRequest{Proof: whole, Policy: key, What: &scalev1.VerifyRequest_Cid{Cid: d.GetCid()}}, "dataset"},
		"another cid":  {&scalev1.VerifyRequest{Proof: whole, Policy: key, What: &scalev1.VerifyRequest_Cid{Cid: d.GetEntryCid()}}, ""},
		"file":         {&scalev1.VerifyRequest{Proof: file, Policy: key, What: ofData(data)}, "file"},
		"other bytes":  {&scalev1.VerifyRequest{Proof: file, Policy: key, What: ofData(bad)}, ""},
		"no bytes":     {&scalev1.VerifyRequest{Proof: file, Policy: key, What: ofData(nil)}, ""},
		"link":         {&scalev1.VerifyRequest{Proof: link, Policy: key, What: ofData([]byte("target"))}, "link"},
		"another link": {&scalev1.VerifyRequest{Proof: link, Policy: key, What: ofData([]byte("targex"))}, ""},
		"range":        {&scalev1.VerifyRequest{Proof: ranged.proof, Policy: key, What: ofData(ranged.data)}, "range"},
		"whole file":   {&scalev1.VerifyRequest{Proof: ranged.proof, Policy: key, What: ofData(data)}, "range"},
		"part":         {&scalev1.VerifyRequest{Proof: ranged.proof, Policy: key, What: ofData(ranged.data[1:])}, ""},
		"a curator":    {&scalev1.VerifyRequest{Proof: whole, Policy: key, Curators: [][]byte{public(testKey(1)), d.GetCurator()}}, "dataset"},
		"none of them": {&scalev1.VerifyRequest{Proof: whole, Policy: key, Curators: [][]byte{public(testKey(1))}}, ""},
		"no proof":     {&scalev1.VerifyRequest{Policy: key}, ""},
		"cut off":      {&scalev1.VerifyRequest{Proof: whole[:len(whole)-9], Policy: key}, ""},
		"another key":  {&scalev1.VerifyRequest{Proof: whole, Policy: "node.test+9db81d82+ATmrhlzGhzjq5wXmNgF05FB6CBbfYuF7vyLgVzqWjIct"}, ""},
	} {
		resp, err := n.proofs.Verify(n.ctx, c.req)
		if err != nil && what == "another key" { // of no consequence: the text of a key has a checksum
			refusedField(t, what, err, isInvalid, "policy")
			continue
		}
		if err != nil || resp.GetValid() != (c.scope != "") || (resp.GetRefusal() == "") != resp.GetValid() {
			t.Errorf("%s: %v, %v", what, resp, err)
			continue
		}
		if resp.GetValid() && (resp.GetScope() != c.scope || resp.GetName() != "tree" || resp.GetCid() != d.GetCid() || resp.GetEntry() != d.GetEntry() ||
			resp.GetOrigin() != "node.test" || !bytes.Equal(resp.GetCurator(), d.GetCurator()) || resp.GetCuratorTrusted() != (what == "a curator")) {
			t.Errorf("%s: %v", what, resp)
		}
		if resp.GetValid() && c.scope == "range" && (resp.GetStart() != ranged.info.GetStart() || resp.GetEnd() != ranged.info.GetEnd() || string(resp.GetPath()) != "a") {
			t.Errorf("%s: %v", what, resp)
		}
	}
	for field, req := range map[string]*scalev1.VerifyRequest{
		"policy":      {Proof: whole},
		"curators[0]": {Proof: whole, Policy: key, Curators: [][]byte{[]byte("short")}},
		"curators[1]": {Proof: whole, Policy: key, Curators: [][]byte{public(testKey(1)), make([]byte, 32)}},
		"cid":         {Proof: whole, Policy: key, What: &scalev1.VerifyRequest_Cid{Cid: "x"}},
	} {
		_, err := n.proofs.Verify(n.ctx, req)
		refusedField(t, field, err, isInvalid, field)
	}
	for what, policy := range map[string]string{"no key": "x", "no policy": "log x\nquorum", "long": strings.Repeat("x ", maxRequest)} {
		_, err := n.proofs.Verify(n.ctx, &scalev1.VerifyRequest{Proof: whole, Policy: policy})
		refusedField(t, what, err, isInvalid, "policy")
	}
}

// Callers who begin to verify and send nothing keep no other from it.
func TestVerifySilent(t *testing.T) {
	n := newRawNode(t, nil)
	silent := 2 * heavyRequests
	for range silent {
		if _, err := n.conn.NewStream(n.ctx, &grpc.StreamDesc{ClientStreams: true}, scalev1.ProofService_Verify_FullMethodName); err != nil {
			t.Fatal(err)
		}
	}
	n.waiting(silent, waitsRecv)
	_, err := n.proofs.Verify(n.ctx, &scalev1.VerifyRequest{})
	refusedField(t, "no policy", err, isInvalid, "policy")
}

// Whoever has the log's key alone can tell that the node holds the data.
func TestChallenge(t *testing.T) {
	n := newRawNode(t, limited(Limits{ChallengeSamples: 40}))
	d := n.putParts(treeHeader("tree"), fileEntry("a", string(noiseBytes(1, 300_000))), fileEntry("b/c", string(noiseBytes(2, 200_000))), fileEntry("e", ""), linkEntry("l", "a"))
	n.putFile("empty", nil)
	c := audit.Challenge{Seed: []byte("a seed that nobody could know"), Count: 40}
	messages, err := receive(n.audits.Challenge(n.ctx, &scalev1.ChallengeRequest{Ref: "tree", Seed: c.Seed, Count: uint32(c.Count)}))
	if err != nil || len(messages) != 41 {
		t.Fatalf("%d messages, %v", len(messages), err)
	}
	head := messages[0].GetHead()
	if head.GetDataset().GetCid() != d.GetCid() || messages[0].GetSample() != nil || n.opened(head.GetCheckpoint()).Size != 3 {
		t.Errorf("%v", head)
	}
	samples := func(messages []*scalev1.ChallengeResponse) iter.Seq2[audit.Sample, error] {
		return func(yield func(audit.Sample, error) bool) {
			for _, m := range messages {
				s := m.GetSample()
				if !yield(audit.Sample{Draw: int(s.GetDraw()), Position: s.GetPosition(), Path: string(s.GetPath()), FileStart: s.GetFileStart(),
					ChunkStart: s.GetChunkStart(), Proof: s.GetProof(), Data: s.GetData()}, nil) {
					return
				}
			}
		}
	}
	h := audit.Head{Entry: head.GetEntry(), Checkpoint: head.GetCheckpoint().GetNote()}
	res, err := audit.Verify(c, h, samples(messages[1:]), n.trust(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := res.Submission().Format(); err != nil || len(line) > 512 {
		t.Errorf("%q, %v", line, err)
	}
	messages[7].GetSample().GetData()[5]++
	if _, err := audit.Verify(c, h, samples(messages[1:]), n.trust(), nil); err == nil {
		t.Error("other bytes hold")
	}
	seed := c.Seed
	for what, c := range map[string]struct {
		req    *scalev1.ChallengeRequest
		reason scalev1.ErrorReason
		field  string
	}{
		"short seed": {&scalev1.ChallengeRequest{Ref: "tree", Seed: seed[:15], Count: 1}, isInvalid, "seed"},
		"long seed":  {&scalev1.ChallengeRequest{Ref: "tree", Seed: make([]byte, 65), Count: 1}, isInvalid, "seed"},
		"no count":   {&scalev1.ChallengeRequest{Ref: "tree", Seed: seed}, isInvalid, "count"},
		"many":       {&scalev1.ChallengeRequest{Ref: "tree", Seed: seed, Count: 41}, isInvalid, "count"},
		"no ref":     {&scalev1.ChallengeRequest{Seed: seed, Count: 1}, isInvalid, "ref"},
		"a file":     {&scalev1.ChallengeRequest{Ref: "tree/a", Seed: seed, Count: 1}, isInvalid, "ref"},
		"none":       {&scalev1.ChallengeRequest{Ref: "none", Seed: seed, Count: 1}, isNotFound, ""},
		"empty":      {&scalev1.ChallengeRequest{Ref: "empty", Seed: seed, Count: 1}, isInvalid, ""},
	} {
		_, err := receive(n.audits.Challenge(n.ctx, c.req))
		if c.field == "" {
			refused(t, what, err, c.reason)
		} else {
			refusedField(t, what, err, c.reason, c.field)
		}
	}
}

// A proof with a manifest is held until it is taken, so there are few at a time; who finds
// no turn is told to come back.
func TestManifestTurns(t *testing.T) {
	n := newRawNode(t, limited(Limits{WriteWait: 50 * time.Millisecond}))
	n.putFile("file", noiseBytes(1, 1000))
	req := &scalev1.ProveRequest{Ref: "file", Manifest: true}
	if err := n.srv.reads.names.enter(n.ctx); err != nil {
		t.Fatal(err)
	}
	_, err := n.prove(req)
	var retry *RetryAfter
	if refused(t, "a second", err, isLimit); !errors.As(fromStatus(err), &retry) {
		t.Error("it is not told when to come back")
	}
	if _, err := n.prove(&scalev1.ProveRequest{Ref: "file"}); err != nil {
		t.Errorf("a proof without a manifest: %v", err)
	}
	n.srv.reads.names.leave()
	for range 3 { // each gives its turn back
		if _, err := n.prove(req); err != nil {
			t.Error(err)
		}
	}
}

// A node makes no manifest that would take more than answers may; its owner may have one.
func TestManifestSize(t *testing.T) {
	n := newRawNode(t, limited(Limits{SendBytes: 1 << 20}))
	parts := []*scalev1.PutRequest{treeHeader("tree")}
	for i := range 300 { // less than 1 MiB of leaves, and more with what they point to
		parts = append(parts, linkEntry(fmt.Sprintf("%04d", i), strings.Repeat("t", 4000)))
	}
	n.putParts(parts...)
	_, err := n.prove(&scalev1.ProveRequest{Ref: "tree", Manifest: true})
	refused(t, "a manifest", err, isLimit, "300 files", "1048576")
	if _, err := n.prove(&scalev1.ProveRequest{Ref: "tree"}); err != nil {
		t.Error(err)
	}
	o, err := n.store.Resolve(n.ctx, "tree")
	if err != nil {
		t.Fatal(err)
	}
	for most, ok := range map[uint64]bool{0: true, 2 << 20: true, 300 * 128: false, 1: false} {
		if _, err := n.store.Prove(n.ctx, o, store.ProveOptions{Manifest: true, ManifestBytes: most}); (err == nil) != ok || !ok && !errors.Is(err, store.ErrManifest) {
			t.Errorf("at most %d bytes: %v", most, err)
		}
	}
}

// A small proof can unfold to a large one. What it is then is not said, in little memory.
func TestVerifyUnfolds(t *testing.T) {
	n := newRawNode(t, nil)
	const shared, leaves = 4000, 20_000
	m := binary.AppendUvarint(nil, leaves)
	m = append(append(m, 0), binary.AppendUvarint(nil, shared)...)
	m = append(append(m, strings.Repeat("a", shared)...), 3) // an empty directory
	for range leaves - 1 {
		m = append(append(binary.AppendUvarint(m, shared), 1, 'b'), 3)
	}
	extra := append([]byte("scale-proof/v1\n\x04"), binary.AppendUvarint(nil, uint64(len(m)))...)
	extra = append(extra, m...)
	sum := sha256.Sum256(extra)
	text := "c2sp.org/tlog-proof@v1\nextra " + base64.StdEncoding.EncodeToString(append(extra, sum[:]...)) + "\nindex 0\n\nx"
	_, err := n.proofs.Verify(n.ctx, &scalev1.VerifyRequest{Proof: []byte(text), Policy: n.store.VerifierKey()})
	refused(t, "80 MB of names", err, isLimit, "too much memory")
}
