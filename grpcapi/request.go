package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/ledger"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// What callers send, checked.

// invalidf says which field of a request makes no sense, and why.
func invalidf(field, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if !errors.Is(err, store.ErrInvalid) { // otherwise it says so
		err = fmt.Errorf("%w: %w", err, store.ErrInvalid)
	}
	return &fieldError{field, err}
}

// inField says which field of a request an error is about.
func inField(field string, err error) error {
	if err == nil {
		return nil
	}
	return &fieldError{field, err}
}

// inMessage is inField for an error about a message inside the request: if it says which of
// that one's fields it is about, so does this.
func inMessage(field string, err error) error {
	if f := (*fieldError)(nil); errors.As(err, &f) {
		field, err = field+"."+f.field, f.err
	}
	return inField(field, err)
}

// maxRef bounds a REF: a name, a CID or an index, and a path.
const maxRef = 256 + mostPath

// resolve finds what a REF and a path appended to it name.
func (s *Server) resolve(ctx context.Context, ref string, path []byte) (store.Object, error) {
	switch {
	case ref == "":
		return store.Object{}, invalidf("ref", "it is missing")
	case len(ref) > maxRef:
		return store.Object{}, invalidf("ref", "%d bytes, must be at most %d", len(ref), maxRef)
	case len(path) > mostPath:
		return store.Object{}, invalidf("path", "%d bytes, must be at most %d", len(path), mostPath)
	}
	if len(path) > 0 {
		ref += "/" + string(path)
	}
	return s.store.Resolve(ctx, ref)
}

// resolveDataset is resolve for calls that take whole datasets only.
func (s *Server) resolveDataset(ctx context.Context, ref string) (store.Object, error) {
	o, err := s.resolve(ctx, ref, nil)
	if err == nil && o.Path != "" {
		err = invalidf("ref", "%q is in a dataset: name the whole of it", ref)
	}
	return o, err
}

// parents finds the entries of the datasets that another one derives from.
func (s *Server) parents(ctx context.Context, refs []string) ([]int64, error) {
	if len(refs) > ledger.MaxParents-1 {
		return nil, invalidf("parents", "%d of them, must be at most %d", len(refs), ledger.MaxParents-1)
	}
	var entries []int64
	for i, ref := range refs {
		o, err := s.resolveDataset(ctx, ref)
		if err != nil {
			return nil, inField(fmt.Sprintf("parents[%d]", i), err)
		}
		entries = append(entries, o.Dataset.Entry)
	}
	return entries, nil
}

func checkName(field, name string) error {
	if err := ledger.CheckName(name); err != nil {
		return invalidf(field, "%w", err)
	}
	return nil
}

// checkProfile checks the name of a profile; "" is the default.
func checkProfile(field, name string) error {
	if name == "" {
		return nil
	}
	if _, err := dag.LookupProfile(name); err != nil {
		return invalidf(field, "%w; NodeService.GetInfo lists them", err)
	}
	return nil
}

// byteRange returns the bytes of a file of that size that a range names.
func byteRange(r *scalev1.ByteRange, size uint64) (store.Range, error) {
	all := store.Range{From: 0, To: size}
	if r == nil {
		return all, nil
	}
	start, end := r.GetStart(), size
	if r.End != nil {
		end = r.GetEnd()
	}
	switch {
	case start > size:
		return all, invalidf("range.start", "%d, the file has %d bytes", start, size)
	case end > size:
		return all, invalidf("range.end", "%d, the file has %d bytes", end, size)
	case start > end, start == end && r.End != nil:
		return all, invalidf("range.end", "%d is not above %d", end, start)
	}
	return store.Range{From: start, To: end}, nil
}

// curatorKey checks a key under which signatures are to count.
func curatorKey(field string, b []byte) (ledger.CuratorKey, error) {
	k, err := curatorBytes(field, b)
	if err == nil {
		if err = ledger.CheckCuratorKey(k); err != nil {
			err = invalidf(field, "%w", err)
		}
	}
	return k, err
}

// curatorBytes takes any that a policy may name.
func curatorBytes(field string, b []byte) (ledger.CuratorKey, error) {
	var k ledger.CuratorKey
	if len(b) != len(k) {
		return k, invalidf(field, "%d bytes, a key has %d", len(b), len(k))
	}
	return ledger.CuratorKey(b), nil
}

// signer stands for an entry that the caller has signed, or is nil for the node's own key.
func signer(field string, block []byte) (store.Signer, error) {
	switch {
	case len(block) == 0:
		return nil, nil
	case len(block) > ledger.MaxEntry:
		return nil, invalidf(field, "%d bytes, an entry has at most %d", len(block), ledger.MaxEntry)
	}
	sig, err := store.Signed(block)
	return sig, inField(field, err)
}

// attributes are those of an entry of a tree that is put.
func attributes(kind dag.Kind, mode *uint32, mtime *timestamppb.Timestamp) (dag.Attr, error) {
	a := dag.Attr{Mode: dag.DefaultFileMode}
	switch {
	case kind == dag.KindLink:
		a.Mode = 0
		if mode != nil {
			return a, invalidf("mode", "a link has none")
		}
	case mode != nil:
		if *mode&^0o7777 != 0 {
			return a, invalidf("mode", "%#o has more than permission bits", *mode)
		}
		a.Mode = *mode
	case kind == dag.KindDir:
		a.Mode = dag.DefaultDirMode
	}
	if mtime != nil {
		if err := mtime.CheckValid(); err != nil {
			return a, invalidf("mtime", "%w", err)
		}
		a.Mtime = mtime.AsTime()
	}
	return a, nil
}

func checkTarget(kind dag.Kind, target string) error {
	switch n := len(target); {
	case kind != dag.KindLink && n > 0:
		return invalidf("target", "%v has none", kind)
	case kind == dag.KindLink && (n == 0 || n > dag.MaxTarget):
		return invalidf("target", "%d bytes, must be 1 to %d", n, dag.MaxTarget)
	case strings.IndexByte(target, 0) >= 0:
		return invalidf("target", "%q has a NUL", target)
	}
	return nil
}

func kindOf(field string, k scalev1.Kind) (dag.Kind, error) {
	switch k {
	case scalev1.Kind_KIND_FILE:
		return dag.KindFile, nil
	case scalev1.Kind_KIND_LINK:
		return dag.KindLink, nil
	case scalev1.Kind_KIND_DIRECTORY:
		return dag.KindDir, nil
	}
	return 0, invalidf(field, "%v is not a kind", k)
}

// timeOf returns the time of a timestamp, zero if there is none.
func timeOf(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalidf(field, "%w", err)
	}
	return t.AsTime(), nil
}

// entryRef is the REF of the dataset of an entry.
func entryRef(index int64) string { return ":" + strconv.FormatInt(index, 10) }
