package grpcapi

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Resolve finds what a reference names, as store.Store.Resolve does. What the node answers
// must be what the reference says: the name, the version, the CID, the index, the path.
func (c *Client) Resolve(ctx context.Context, ref string) (store.Object, error) {
	// In text of protobuf there is no place for other bytes.
	head, path, inside := strings.Cut(ref, "/")
	req := &scalev1.StatRequest{Ref: strings.ToValidUTF8(head, "\ufffd")}
	if inside {
		req.Path = []byte(path)
	}
	r, err := ask(ctx, c, c.datasets.Stat, req)
	if err != nil {
		return store.Object{}, err
	}
	var p parser
	o := store.Object{Dataset: p.dataset(r.GetDataset())}
	e := p.entry(r.GetEntry(), true)
	o.Path, o.CID, o.Info = e.Path, e.CID, e.Info
	if want := strings.TrimSuffix(path, "/"); o.Path != want {
		p.failf("%q: asked for path %.300q, got %.300q", ref, want, o.Path)
	}
	switch {
	case o.Path != "":
		if err := checkTreePath(o.Path); err != nil {
			p.failf("path %.300q: %w", o.Path, err)
		}
		if o.Info.Kind == dag.KindFile && o.Info.Size > o.Dataset.Size {
			p.failf("a file of %d bytes in a dataset of %d", o.Info.Size, o.Dataset.Size)
		}
	case o.CID != o.Dataset.CID || o.Info.Kind != o.Dataset.Kind || o.Info.Kind == dag.KindFile && o.Info.Size != o.Dataset.Size:
		p.failf("dataset and root do not agree")
	default:
		o.Info.Size, o.Info.SizeKnown = o.Dataset.Size, true
	}
	if !names(head, &o.Dataset) {
		p.failf("asked for %.200q, got %s, which is :%d", head, o, o.Dataset.Entry)
	}
	return o, p.err
}

// names reports whether the head of a reference can mean a dataset.
func names(head string, d *store.Dataset) bool {
	if i, ok := strings.CutPrefix(head, ":"); ok {
		return i == strconv.FormatInt(d.Entry, 10)
	}
	if id, err := cid.Decode(head); err == nil {
		return id == d.CID || id == d.EntryCID
	}
	name, version, _ := strings.Cut(head, "@")
	if name != d.Name {
		return false
	}
	return version == "" || strings.HasPrefix(version, "-") || version == strconv.Itoa(d.Version)
}

// place is a reference to o that always means the same: by its entry.
func place(o store.Object) (ref string, path []byte) {
	return ":" + strconv.FormatInt(o.Dataset.Entry, 10), []byte(o.Path)
}

// errNotBack is of datasets whose kind is not known.
var errNotBack = fmt.Errorf("its root is missing: %w: the ledger was restored without its blocks; give them back with: scale put --heal PATH", store.ErrMissing)

// Get writes the bytes of a file, or of a range of it, as store.Store.Get does. After a
// broken connection it goes on with the byte that it had come to. The node has compared the
// bytes with their digests, or where it sends them compressed this client has, with those
// that the node names; whoever does not take its word compares them with a CID or a proof.
func (c *Client) Get(ctx context.Context, o store.Object, r *store.Range, w io.Writer) (int64, error) {
	if o.Info.Kind == 0 {
		return 0, fmt.Errorf("get %s: %w", o, errNotBack)
	}
	if o.Info.Kind != dag.KindFile {
		return 0, fmt.Errorf("%s is not a file but a %v: %w", o, o.Info.Kind, store.ErrInvalid)
	}
	from, to := uint64(0), o.Info.Size
	if r != nil {
		from, to = r.From, min(r.To, o.Info.Size)
		if r.From > r.To || r.From > o.Info.Size {
			return 0, fmt.Errorf("range %d:%d of %s, which has %d bytes: %w", r.From, r.To, o, o.Info.Size, store.ErrInvalid)
		}
	}
	g := newGetter(w, from, to)
	defer g.close()
	p := patience{c: c}
	last := from
	brought := func() { // what is written counts: a frame that never comes whole brings nothing
		if g.at > last {
			last = g.at
			p.progress()
		}
	}
	for g.at < to {
		callErr, writeErr := c.receive(ctx, scalev1.DatasetService_Get_FullMethodName, g.request(o), func(m *wireMessage) error {
			err := g.take(m)
			brought()
			return err
		})
		if writeErr == nil {
			writeErr = g.flush() // what came before the call ended, too
			brought()
		}
		if g.unsound(writeErr) {
			c.log.Warn("asking the node to look at what it holds", "of", o, "after", writeErr)
			continue
		}
		if writeErr != nil {
			return int64(g.at - from), fmt.Errorf("get %s: %w", o, writeErr)
		}
		if callErr != nil {
			if err := p.again(ctx, callErr); err != nil {
				return int64(g.at - from), fmt.Errorf("get %s: %w", o, err)
			}
		} else if g.at < to {
			return int64(g.at - from), fmt.Errorf("get %s: %w", o, nodeErrorf("it ended at byte %d, not %d", g.at, to))
		}
	}
	return int64(to - from), nil
}
