package grpcapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/koii-network/scale/dag/ledger"
)

// Page tokens say where a listing goes on. They are opaque to callers: base64url without
// padding of a version, the kind of listing and the fields of that kind. They hold nothing
// that a caller could not ask for without them, so they are not signed; a token is parsed
// strictly (it is written anew and compared) and goes with the request that it came from.

const tokenVersion = 1

// maxPageBytes is where a page of a tree ends. An answer is held until its caller takes it.
const maxPageBytes = 256 << 10

// maxPageToken bounds a token before it is decoded.
const maxPageToken = 16 << 10

// A pageToken is one kind of token.
type pageToken interface {
	kind() byte
	append(b []byte) []byte
	// parse reads what append wrote and returns what is left.
	parse(b []byte) ([]byte, bool)
}

func formatPage(t pageToken) string {
	return base64.RawURLEncoding.EncodeToString(t.append([]byte{tokenVersion, t.kind()}))
}

// parsePage reads a token into t, which has the fields that the token must agree with. An
// empty token leaves t as it is.
func parsePage(s string, t pageToken) error {
	bad := func(why string) error { return invalidf("page_token", "%s; begin again without one", why) }
	if s == "" {
		return nil
	}
	if len(s) > maxPageToken {
		return bad(fmt.Sprintf("%d bytes, must be at most %d", len(s), maxPageToken))
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") || len(b) < 2 {
		return bad("it is not one of this node's")
	}
	if b[0] != tokenVersion {
		return bad(fmt.Sprintf("it has version %d, this node makes %d", b[0], tokenVersion))
	}
	if b[1] != t.kind() {
		return bad("it is of another listing")
	}
	rest, ok := t.parse(b[2:])
	if !ok || len(rest) > 0 || formatPage(t) != s {
		return bad("it is not one of this node's, or of another request")
	}
	return nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func takeText(b []byte, most int) (string, []byte, bool) {
	n, b, ok := takeUint(b, uint64(most))
	if !ok || n > uint64(len(b)) {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

func takeUint(b []byte, most uint64) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v > most {
		return 0, nil, false
	}
	return v, b[n:], true
}

// namesToken goes on after a name.
type namesToken struct{ after string }

func (*namesToken) kind() byte               { return 1 }
func (t *namesToken) append(b []byte) []byte { return appendText(b, t.after) }
func (t *namesToken) parse(b []byte) (rest []byte, ok bool) {
	t.after, rest, ok = takeText(b, ledger.MaxName)
	return rest, ok && ledger.CheckName(t.after) == nil
}

// versionsToken goes on after a version of a name.
type versionsToken struct {
	name  string // of the request
	after int
}

func (*versionsToken) kind() byte { return 2 }
func (t *versionsToken) append(b []byte) []byte {
	return binary.AppendUvarint(appendText(b, t.name), uint64(t.after))
}
func (t *versionsToken) parse(b []byte) ([]byte, bool) {
	name, b, ok := takeText(b, ledger.MaxName)
	if !ok || name != t.name {
		return nil, false
	}
	v, b, ok := takeUint(b, math.MaxInt32)
	t.after = int(v)
	return b, ok && v > 0
}

// treeToken goes on after a path below a place in the dataset of an entry.
type treeToken struct {
	asked [8]byte // of the request; see askedHash
	entry int64
	below string
	after string // "" when only the place itself has been listed
}

func (*treeToken) kind() byte { return 3 }
func (t *treeToken) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, t.asked[:]...), uint64(t.entry))
	return appendText(appendText(b, t.below), t.after)
}
func (t *treeToken) parse(b []byte) ([]byte, bool) {
	if len(b) < len(t.asked) || [8]byte(b) != t.asked {
		return nil, false
	}
	entry, b, ok := takeUint(b[len(t.asked):], math.MaxInt64)
	if !ok {
		return nil, false
	}
	t.entry = int64(entry)
	if t.below, b, ok = takeText(b, mostPath); !ok {
		return nil, false
	}
	t.after, b, ok = takeText(b, mostPath)
	return b, ok
}

// anchorsToken goes on below a tree size of a chain.
type anchorsToken struct {
	asked string // the chain of the request
	chain string
	size  int64
}

func (*anchorsToken) kind() byte { return 4 }
func (t *anchorsToken) append(b []byte) []byte {
	return binary.AppendUvarint(appendText(appendText(b, t.asked), t.chain), uint64(t.size))
}
func (t *anchorsToken) parse(b []byte) ([]byte, bool) {
	asked, b, ok := takeText(b, maxChainName)
	if !ok || asked != t.asked {
		return nil, false
	}
	if t.chain, b, ok = takeText(b, maxChainName); !ok {
		return nil, false
	}
	size, b, ok := takeUint(b, math.MaxInt64)
	t.size = int64(size)
	return b, ok && size > 0 && (t.asked == "" || t.asked == t.chain)
}

// askedHash stands for what a listing was asked of.
func askedHash(ref string, path []byte) [8]byte {
	h := sha256.Sum256(append(appendText(nil, ref), path...))
	return [8]byte(h[:8])
}
