package grpcapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/koii-network/scale/compress"
	"github.com/koii-network/scale/dag"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
	"github.com/koii-network/scale/store/pack"
)

// TestClientPutShortConnections puts over a link that breaks again and again, each time after
// so many bytes, of which the largest frames or all that calls send side by side are more.
func TestClientPutShortConnections(t *testing.T) {
	const many = 1000
	for name, c := range map[string]struct {
		data []byte
		each int64
	}{
		"512 KiB":       {noiseBytes(1, 6<<20), 512 << 10},
		"1 MiB":         {noiseBytes(2, 12<<20), 1 << 20},
		"4 MB":          {noiseBytes(3, 24<<20), 4_000_000},
		"1 MiB, sealed": {[]byte(base64.StdEncoding.EncodeToString(noiseBytes(4, 9<<20))), 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			n := startClientNode(t)
			proxy := startCutProxy(t, n.addr)
			proxy.cutAfter(false, slices.Repeat([]int64{c.each}, many)...)
			got := must(n.dial(proxy.addr).Put(t.Context(), []store.Input{putFile(t, "short", c.data)}, store.PutOptions{}))
			sent, _, made := proxy.counts()
			t.Logf("%d bytes sent for %d over %d connections", sent, len(c.data), made)
			if most := 2 * int64(len(c.data)); sent > most {
				t.Errorf("%d bytes sent for %d, want at most %d", sent, len(c.data), most)
			}
			want := must(n.store.Put(t.Context(), []store.Input{{Name: "local", Reader: bytes.NewReader(c.data)}}, store.PutOptions{}))
			if got[0].CID != want[0].CID || want[0].NewBytes != 0 {
				t.Errorf("%v was put, want %v; %d bytes were missing", got[0].CID, want[0].CID, want[0].NewBytes)
			}
			n.holds(n.dial(n.addr), "short", c.data)
			n.sound()
		})
	}
}

// TestClientPutHopeless: over a link that breaks before a call is through a put gives up, and
// says that something is kept only if the node has said so.
func TestClientPutHopeless(t *testing.T) {
	const many = 1000
	for name, c := range map[string]struct {
		cuts []int64
		want error
	}{
		"nothing arrives": {slices.Repeat([]int64{4 << 10}, many), errSent},
		"some arrives":    {append([]int64{22 << 20}, slices.Repeat([]int64{64 << 10}, many)...), errKept},
	} {
		t.Run(name, func(t *testing.T) {
			n := startClientNode(t)
			proxy := startCutProxy(t, n.addr)
			proxy.cutAfter(false, c.cuts...)
			cl := n.dial(proxy.addr)
			cl.opt.Patience = time.Second
			_, err := cl.Put(t.Context(), []store.Input{putFile(t, "hopeless", noiseBytes(5, 24<<20))}, store.PutOptions{})
			if !errors.Is(err, ErrUnreachable) || !errors.Is(err, c.want) || errors.Is(err, errKept) != (c.want == errKept) {
				t.Errorf("the put ends with %v, want %v", err, c.want)
			}
			n.sound()
		})
	}
}

// TestClientPutAlone: after a break there is one upload at a time.
func TestClientPutAlone(t *testing.T) {
	n := startClientNode(t)
	proxy := startGRPCProxy(t, n.addr)
	c := n.dial(proxy.addr)
	var mu sync.Mutex
	open, calls := 0, 0
	proxy.set(func(method string, _ int, b []byte) ([][]byte, error) {
		if method == scalev1.BlockService_Upload_FullMethodName {
			mu.Lock()
			defer mu.Unlock()
			open--
		}
		return [][]byte{b}, nil
	}, nil)
	proxy.mu.Lock()
	proxy.refuse = func(method string) error {
		if method == scalev1.BlockService_Upload_FullMethodName {
			mu.Lock()
			defer mu.Unlock()
			calls++
			if open++; open > 1 {
				t.Errorf("%d uploads at a time", open)
			}
		}
		return nil
	}
	proxy.mu.Unlock()
	c.link.broke(0)
	data := noiseBytes(7, 24<<20)
	must(c.Put(t.Context(), []store.Input{putFile(t, "alone", data)}, store.PutOptions{}))
	// 8 MiB of them have 1 MiB, and 16 MiB have 2 MiB.
	if calls < 16 {
		t.Errorf("%d calls, want at least 16", calls)
	}
	n.holds(c, "alone", data)
	n.sound()
}

// TestLink: calls that break together count once, calls get no shorter than a chunk, and all
// is as it was when enough was answered.
func TestLink(t *testing.T) {
	var l link
	is := func(want int) {
		t.Helper()
		if most, _ := l.bears(); most != want {
			t.Errorf("calls of %d bytes, want %d", most, want)
		}
	}
	l.held(100 * compress.MaxPlain)
	is(0)
	for range uploadCalls {
		l.broke(0)
	}
	is(1 << 20)
	l.held(8<<20 - 1)
	is(1 << 20)
	l.held(1)
	is(2 << 20)
	for _, want := range []int{512 << 10, shortestCall, shortestCall} {
		_, breaks := l.bears()
		l.broke(breaks)
		is(want)
	}
	answered := 0
	for most, _ := l.bears(); most > 0; most, _ = l.bears() {
		l.held(most)
		answered += most
	}
	if want := linkSteady * (2*compress.MaxPlain - shortestCall); answered != want {
		t.Errorf("calls go side by side again after %d bytes, want %d", answered, want)
	}
	for _, name := range dag.ProfileNames() {
		if p := must(dag.LookupProfile(name)); p.Splitter().Max() > shortestCall {
			t.Errorf("a chunk of %s has up to %d bytes, calls are made for %d", name, p.Splitter().Max(), shortestCall)
		}
	}
}

// TestUploadCut cuts frames of both codecs in each way that chunks of them can have arrived:
// the parts hold just the others, in order, and a frame that fits is left as it is.
func TestUploadCut(t *testing.T) {
	const chunk = 1 << 10
	u := &uploader{c: &Client{}}
	defer func() { u.opener.Close() }()
	sealer, opener := must(compress.NewSealer(compress.SealOptions{})), must(compress.NewOpener())
	defer opener.Close()
	for _, plain := range [][]byte{noiseBytes(6, 5*chunk), []byte(strings.Repeat("text ", chunk))} {
		f := pack.Frame{PlainSize: uint32(len(plain))}
		var err error
		if f.Codec, f.Sealed, err = sealer.Seal(nil, plain); err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(plain); at += chunk {
			f.Chunks = append(f.Chunks, pack.Chunk{Digest: sha256.Sum256(plain[at : at+chunk]), Size: chunk})
		}
		for set := range 1 << len(f.Chunks) {
			known := make([]bool, len(f.Chunks))
			var want []byte
			for i := range known {
				if known[i] = set>>i&1 == 1; !known[i] {
					want = append(want, plain[i*chunk:(i+1)*chunk]...)
				}
			}
			for _, most := range []int{chunk / 2, chunk, 2*chunk + 1, len(plain)} {
				var got []byte
				parts := must(u.cut(f, known, most))
				for _, p := range parts {
					o := opening{frame: p.Frame}
					if err := o.open(opener); err != nil {
						t.Error(err)
					}
					if len(o.plain) > max(most, chunk) || p.tried {
						t.Errorf("%v known: a part of %d bytes, the most is %d", known, len(o.plain), most)
					}
					got = append(got, o.plain...)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%v known, at most %d: %d bytes in %d parts, want %d", known, most, len(got), len(parts), len(want))
				}
				if set == 0 && most == len(plain) && &parts[0].Sealed[0] != &f.Sealed[0] {
					t.Error("a frame that fits was made anew")
				}
			}
		}
	}
}
