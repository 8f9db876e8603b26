package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/koii-network/scale/grpcapi"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// randomBytes returns n bytes of which no two seeds have a chunk in common.
func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// Whoever keeps the node waiting, by silence, by a trickle, or by not reading, is cut off,
// and nobody else notices.
func TestNodeSlowClients(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t), "--idle-timeout", "1s")
	conn := p.dial(t, p.write)
	large := noise(8 << 20)
	if _, err := putBytes(t.Context(), conn, "large", large); err != nil {
		t.Fatal(err)
	}
	begin := func(t *testing.T) grpc.ClientStreamingClient[scalev1.PutRequest, scalev1.PutResponse] {
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		t.Cleanup(cancel)
		s, err := scalev1.NewDatasetServiceClient(conn).Put(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	tooSlow := func(t *testing.T, err error) {
		t.Helper()
		wantStatus(t, t.Name(), err, codes.DeadlineExceeded, "TOO_SLOW")
	}
	slow := map[string]func(*testing.T){
		"a put that says nothing": func(t *testing.T) {
			tooSlow(t, begin(t).RecvMsg(new(scalev1.PutResponse)))
		},
		"a put that stops": func(t *testing.T) {
			s := begin(t)
			for _, m := range []*scalev1.PutRequest{putHeader("slow", scalev1.Kind_KIND_FILE), putData(noise(100_000))} {
				if err := s.Send(m); err != nil {
					t.Fatal(err)
				}
			}
			tooSlow(t, s.RecvMsg(new(scalev1.PutResponse)))
		},
		"a put of one byte a message": func(t *testing.T) {
			s := begin(t)
			ended := make(chan error, 1)
			go func() { ended <- s.RecvMsg(new(scalev1.PutResponse)) }()
			s.Send(putHeader("slow", scalev1.Kind_KIND_FILE)) // the answer tells
			trickle := time.NewTicker(20 * time.Millisecond)
			defer trickle.Stop()
			for {
				select {
				case <-trickle.C:
					s.Send(putData([]byte{1}))
				case err := <-ended:
					tooSlow(t, err)
					return
				}
			}
		},
		"a message of one byte a frame": func(t *testing.T) {
			c := p.dialHTTP2(t)
			c.open(1, putPath, "authorization", "Bearer "+p.write)
			c.WriteData(1, false, []byte{0, 0, 0x10, 0, 0})
			ended := make(chan codes.Code, 1)
			go func() { ended <- c.answer(t) }()
			trickle := time.NewTicker(20 * time.Millisecond)
			defer trickle.Stop()
			for {
				select {
				case <-trickle.C:
					c.WriteData(1, false, []byte{1})
				case code := <-ended:
					if code != codes.DeadlineExceeded {
						t.Errorf("ended with %v", code)
					}
					return
				}
			}
		},
		"headers that do not end": func(t *testing.T) {
			c := p.dialHTTP2(t)
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(callHeaders(putPath)...)})
			// No call has begun, so there is none to end; it holds nothing but its
			// connection, which it may.
			p.alive(t)
		},
		"a get that is not read": func(t *testing.T) {
			reader := p.dial(t, "", grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
			s, err := scalev1.NewDatasetServiceClient(reader).Get(t.Context(), &scalev1.GetRequest{Ref: "large"})
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := p.log.wait(func(line string) bool {
				return strings.Contains(line, "/Get ") && strings.Contains(line, codes.DeadlineExceeded.String())
			}); !ok {
				t.Error("the node does not end it")
			}
			for err == nil {
				_, err = s.Recv()
			}
			tooSlow(t, err)
		},
		"a put by HTTP that stops": func(t *testing.T) {
			body, w := io.Pipe()
			defer w.Close()
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+p.http+"/v1/put", body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+p.write)
			req.Header.Set("Content-Type", "application/json")
			go w.Write([]byte(`{"header":{"name":"slow","kind":"KIND_FILE"}}` + "\n")) // ends with the pipe
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				return // cut off without a word
			}
			defer resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("status %d", resp.StatusCode)
			}
		},
	}
	// Run returns when all of them have.
	t.Run("at a time", func(t *testing.T) {
		for name, test := range slow {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
		t.Run("others", func(t *testing.T) {
			t.Parallel()
			for i := range 5 {
				name := fmt.Sprint("quick", i)
				if _, err := putBytes(t.Context(), conn, name, []byte(name)); err != nil {
					t.Error(err)
				}
				if got, err := getBytes(t.Context(), conn, "large"); err != nil || !bytes.Equal(got, large) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			}
		})
	})
	if names := datasetNames(t, conn); slices.Contains(names, "slow") {
		t.Errorf("what never came to its end is there: %q", names)
	}
	p.sound(t)
}

// A disk that runs full in the middle of puts is an error for those, and for nobody else;
// there is room again for what fits.
func TestNodeFullDisk(t *testing.T) {
	noLeaks(t)
	work := t.TempDir()
	if err := os.Mkdir(filepath.Join(work, "disk"), 0o700); err != nil {
		t.Fatal(err)
	}
	sh := exec.Command("smalldisk", "160", "disk", "sh")
	sh.Dir = work
	stdin, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &nodeProcess{nodeStore: &nodeStore{dir: "disk/s"}}
	commands := 0
	run := func(command string) (out string, code string) {
		t.Helper()
		commands++
		end := fmt.Sprintf("ended %d ", commands)
		before := p.out.count()
		if _, err := fmt.Fprintf(stdin, "%s\necho '%s' $?\n", command, end); err != nil {
			t.Fatal(err)
		}
		line, ok := p.out.wait(func(line string) bool { return strings.HasPrefix(line, end) })
		if !ok {
			t.Fatalf("%q does not end:\n%s", command, p.log.tail(20))
		}
		said := p.out.from(before)
		return strings.Join(said[:len(said)-1], "\n"), strings.TrimSpace(strings.TrimPrefix(line, end))
	}
	must := func(command string) string {
		t.Helper()
		out, code := run(command)
		if code != "0" {
			t.Fatalf("%q ended with exit code %s:\n%s\n%s", command, code, out, p.log.tail(20))
		}
		return out
	}
	p.launch(t, sh)
	must("scale init --store disk/s")
	p.write = strings.TrimSpace(must("scale token create w --scope write --store disk/s"))
	limited := must("echo ${LIMITED-}") != "" // no disk of our own, see smalldisk
	must("scale serve --json --store disk/s --listen 127.0.0.1:0 --http 127.0.0.1:0 & node=$!")
	p.addresses(t)
	conn := p.dial(t, p.write)
	small := randomBytes(1, 1<<20)
	if _, err := putBytes(t.Context(), conn, "small", small); err != nil {
		t.Fatal(err)
	}
	noSpace := func(what string, err error) {
		t.Helper()
		if limited {
			if err == nil {
				t.Errorf("%s went through", what)
			}
			return
		}
		wantStatus(t, what, err, codes.ResourceExhausted, "NO_SPACE")
	}

	// Two puts that together are too much, and somebody who reads meanwhile.
	ctx, cancel := context.WithCancel(t.Context())
	var reading errgroup.Group
	reading.Go(func() error {
		for ctx.Err() == nil {
			if got, err := getBytes(t.Context(), conn, "small"); err != nil || !bytes.Equal(got, small) {
				return fmt.Errorf("while the disk runs full small reads as %d bytes, %w", len(got), err)
			}
		}
		return nil
	})
	var puts sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		puts.Go(func() {
			_, errs[i] = putBytes(t.Context(), conn, fmt.Sprint("big", i), randomBytes(byte(2+i), 100<<20))
		})
	}
	puts.Wait()
	cancel()
	if err := reading.Wait(); err != nil {
		t.Error(err)
	}
	failed := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if failed < 0 {
		t.Fatal("200 MiB fit on a disk of 160")
	}
	noSpace("the put that found no room", errs[failed])
	want := []string{"small"}
	if errs[1-failed] == nil {
		want = []string{fmt.Sprint("big", 1-failed), "small"}
	} else {
		noSpace("the other", errs[1-failed])
	}
	if got := datasetNames(t, conn); !slices.Equal(got, want) {
		t.Errorf("datasets %q, want %q", got, want)
	}

	// Chunks that a client has cut and sealed find no more room.
	c, err := grpcapi.Dial(t.Context(), p.grpc, grpcapi.DialOptions{Token: p.write, TempDir: work})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	noise := io.LimitReader(rand.NewChaCha8([32]byte{9}), 170<<20)
	if _, err = c.Put(t.Context(), []store.Input{{Name: "uploaded", Reader: noise}}, store.PutOptions{}); err == nil || !limited && !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("an upload of more than the disk has: %v, want ErrNoSpace", err)
	}
	if got := datasetNames(t, conn); !slices.Equal(got, want) {
		t.Errorf("datasets %q after an upload that found no room, want %q", got, want)
	}

	if !limited {
		// Someone else takes the last byte.
		run("dd if=/dev/zero of=disk/other bs=1M 2> /dev/null")
		_, err = putBytes(t.Context(), conn, "tiny", []byte("tiny"))
		noSpace("a tiny put", err)
		if got, err := getBytes(t.Context(), conn, "small"); err != nil || !bytes.Equal(got, small) {
			t.Errorf("on a full disk small reads as %d bytes, %v", len(got), err)
		}
		must("rm disk/other")
		if _, err := putBytes(t.Context(), conn, "tiny", []byte("tiny")); err != nil {
			t.Errorf("when there is room again: %v", err)
		}
	}
	must("scale check --read-data --store disk/s")
	must("kill -TERM $node && wait $node")
	must("scale check --read-data --store disk/s")
	stdin.Close()
	p.ended(t)
}
