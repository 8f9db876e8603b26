package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// An h2conn speaks HTTP/2 frame by frame, right or wrong.
type h2conn struct {
	net.Conn
	*http2.Framer
	headers bytes.Buffer
	coder   *hpack.Encoder
}

// dialRaw connects and sends what it is given.
func (p *nodeProcess) dialRaw(t *testing.T, first []byte) *h2conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.grpc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patient))
	c := &h2conn{Conn: conn, Framer: http2.NewFramer(conn, conn)}
	c.coder = hpack.NewEncoder(&c.headers)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	conn.Write(first) // what becomes of it is seen by reading
	return c
}

// dialHTTP2 connects as a client of HTTP/2 begins.
func (p *nodeProcess) dialHTTP2(t *testing.T) *h2conn {
	t.Helper()
	c := p.dialRaw(t, []byte(http2.ClientPreface))
	c.WriteSettings()
	return c
}

// block encodes headers.
func (c *h2conn) block(fields ...string) []byte {
	c.headers.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.coder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // to memory
	}
	return bytes.Clone(c.headers.Bytes())
}

func callHeaders(path string, more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "localhost",
		"content-type", "application/grpc", "te", "trailers"}, more...)
}

// open begins a call in the stream.
func (c *h2conn) open(stream uint32, path string, more ...string) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block(callHeaders(path, more...)...), EndHeaders: true})
}

// closed reads what comes until the node has closed the connection.
func (c *h2conn) closed(t *testing.T) {
	t.Helper()
	_, err := io.Copy(io.Discard, c.Conn)
	if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		t.Error("the node keeps the connection open")
	}
}

// answer reads frames until the call in stream 1 has ended, and returns how: its gRPC
// status, or else -1.
func (c *h2conn) answer(t *testing.T) codes.Code {
	t.Helper()
	const other = codes.Code(1<<32 - 1)
	for {
		f, err := c.ReadFrame()
		if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
			t.Error("the node does not answer")
			return other
		}
		if err != nil { // closed
			return other
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, h := range f.RegularFields() {
				if h.Name == "grpc-status" {
					n, err := strconv.ParseUint(h.Value, 10, 32)
					if err != nil {
						t.Error(err)
					}
					return codes.Code(n)
				}
			}
			if f.StreamEnded() {
				return other
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return other
		}
	}
}

// message frames one message as gRPC does.
func message(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// rawFrame is a frame whose parts need not go together.
func rawFrame(length uint32, kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(length >> 16), byte(length >> 8), byte(length), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

const (
	infoPath  = "/scale.v1.NodeService/GetInfo"
	putPath   = "/scale.v1.DatasetService/Put"
	tokenPath = "/scale.v1.NodeService/CreateToken"
)

// Whatever comes in on the gRPC port, the node closes that connection and serves others.
func TestNodeGarbage(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t))
	closing := map[string]func() *h2conn{
		"nothing but silence": func() *h2conn { return p.dialRaw(t, nil) },
		"half a preface":      func() *h2conn { return p.dialRaw(t, []byte(http2.ClientPreface[:11])) },
		"random bytes":        func() *h2conn { return p.dialRaw(t, noise(64<<10)) },
		"zeros":               func() *h2conn { return p.dialRaw(t, make([]byte, 64<<10)) },
		"HTTP/1.1":            func() *h2conn { return p.dialRaw(t, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")) },
		"random bytes behind the preface": func() *h2conn {
			return p.dialRaw(t, append([]byte(http2.ClientPreface), noise(64<<10)...))
		},
		"random bytes behind the settings": func() *h2conn {
			c := p.dialHTTP2(t)
			c.Conn.Write(noise(64 << 10))
			return c
		},
		"a frame that says it has 16 MiB": func() *h2conn {
			c := p.dialHTTP2(t)
			c.Conn.Write(rawFrame(1<<24-1, 0, 0, 1, noise(1<<10)))
			return c
		},
		"data in stream 0": func() *h2conn {
			c := p.dialHTTP2(t)
			c.Conn.Write(rawFrame(4, 0, 0, 0, []byte("data")))
			return c
		},
		"a stream of the server's": func() *h2conn {
			c := p.dialHTTP2(t)
			c.open(2, infoPath)
			return c
		},
		"headers that do not decode": func() *h2conn {
			c := p.dialHTTP2(t)
			c.Conn.Write(rawFrame(8, 1, 4, 1, bytes.Repeat([]byte{0xff}, 8)))
			return c
		},
		"continuation of nothing": func() *h2conn {
			c := p.dialHTTP2(t)
			c.Conn.Write(rawFrame(4, 9, 4, 1, []byte{0x82, 0x82, 0x82, 0x82}))
			return c
		},
		"headers without end": func() *h2conn {
			c := p.dialHTTP2(t)
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(callHeaders(infoPath)...)})
			// Literals that the decoder need not keep. 64 MiB of them would show.
			field := append([]byte{0x00, 0x01, 'x', 0x7f, 0xa1, 0x7b}, make([]byte, 0x7f+0x21+0x7b<<7)...)
			for range (64 << 20) / len(field) {
				if c.WriteContinuation(1, false, field) != nil {
					break // closed, as it should be
				}
			}
			return c
		},
		"a window that is too large": func() *h2conn {
			c := p.dialHTTP2(t)
			c.WriteWindowUpdate(0, 1<<31-1)
			c.WriteWindowUpdate(0, 1<<31-1)
			c.open(1, infoPath)
			c.WriteWindowUpdate(1, 1<<31-1)
			c.WriteWindowUpdate(1, 1<<31-1)
			c.Conn.(*net.TCPConn).CloseWrite()
			return c
		},
		"pings without end": func() *h2conn {
			c := p.dialHTTP2(t)
			for range 100_000 {
				if c.WritePing(false, [8]byte{}) != nil {
					break
				}
			}
			return c
		},
	}
	// The parallel ones are done when Run returns.
	t.Run("closed", func(t *testing.T) {
		for name, send := range closing {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				send().closed(t)
			})
		}
		t.Run("TLS", func(t *testing.T) {
			t.Parallel()
			if _, err := tls.Dial("tcp", p.grpc, &tls.Config{InsecureSkipVerify: true}); err == nil {
				t.Error("TLS on a port that has none")
			}
		})
	})
	p.alive(t)

	t.Run("streams reset as fast as they open", func(t *testing.T) {
		c := p.dialHTTP2(t)
		go io.Copy(io.Discard, c.Conn) // ends with the connection
		for i := range uint32(20_000) {
			c.open(2*i+1, putPath, "authorization", "Bearer "+p.write)
			if c.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				break // had enough
			}
		}
		p.alive(t)
		c.Conn.Close()
	})
	p.sound(t)
}

// Nothing but the path of a method reaches it. A path without its leading slash must not
// get around the scopes, which go by the path.
func TestNodePaths(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t))
	call := func(t *testing.T, path, token string, body []byte) codes.Code {
		t.Helper()
		c := p.dialHTTP2(t)
		defer c.Conn.Close()
		var more []string
		if token != "" {
			more = []string{"authorization", "Bearer " + token}
		}
		c.open(1, path, more...)
		c.WriteData(1, true, body)
		return c.answer(t)
	}
	if got := call(t, infoPath, "", message(nil)); got != codes.OK {
		t.Fatalf("a call made by hand ends with %v", got)
	}
	paths := []string{
		"", "/", "*", "//", infoPath[1:], "/" + infoPath, infoPath + "/", "/scale.v1.NodeService", "/scale.v1.NodeService/",
		"scale.v1.NodeService/GetInfo", "/scale.v1.nodeservice/getinfo", "/scale.v1.NodeService/../NodeService/GetInfo",
		"/scale.v1.NodeService//GetInfo", "/scale.v1.NodeService/GetInfo?x", "/scale.v1.NodeService%2fGetInfo",
		"http://localhost" + infoPath, "/scale.v1.NodeService/GetInfo\x00", "/" + string(noise(1<<10)),
	}
	for _, path := range paths {
		if got := call(t, path, p.admin, message(nil)); got == codes.OK {
			t.Errorf("%.80q is served", path)
		}
	}
	for _, token := range []string{"", p.read, p.write} {
		for _, path := range []string{tokenPath, tokenPath[1:], "/" + tokenPath, "x" + tokenPath} {
			body := message([]byte("\x0a\x04evil\x10\x03")) // name: "evil", scope: admin
			if got := call(t, path, token, body); got == codes.OK {
				t.Errorf("%s with too little scope is served", path)
			}
		}
	}
	if out := scale(t, "token", "list", "--store", p.dir); bytes.Contains([]byte(out), []byte("evil")) {
		t.Errorf("a token was made:\n%s", out)
	}
	p.alive(t)
	p.sound(t)
}

// Messages that are larger than they may be, or are none.
func TestNodeMessages(t *testing.T) {
	noLeaks(t)
	p := startNode(t, newNodeStore(t))
	for name, c := range map[string]struct {
		body []byte
		more []string
		want codes.Code // OK: anything else
	}{
		"a length of 4 GiB":           {body: append([]byte{0, 0xff, 0xff, 0xff, 0xff}, noise(1<<10)...), want: codes.ResourceExhausted},
		"a length just too large":     {body: append([]byte{0, 0, 0x40, 0, 1}, noise(1<<10)...), want: codes.ResourceExhausted},
		"less than its length":        {body: []byte{0, 0, 0, 1, 0, 'x'}},
		"no length":                   {body: []byte{0, 0}},
		"not protobuf":                {body: message(bytes.Repeat([]byte{0xff}, 100))},
		"compressed, not said how":    {body: []byte{1, 0, 0, 0, 1, 'x'}},
		"compressed with gzip":        {body: append([]byte{1}, message(gzipped(t, 16<<20))[1:]...), more: []string{"grpc-encoding", "gzip"}},
		"compressed with the unknown": {body: append([]byte{1}, message(noise(100))[1:]...), more: []string{"grpc-encoding", "bomb"}},
		"an impossible flag":          {body: []byte{7, 0, 0, 0, 1, 'x'}},
		"metadata of a MiB":           {body: message(nil), more: []string{"x-long", fmt.Sprintf("%01048576d", 0)}},
		"not gRPC":                    {body: message(nil), more: []string{"content-type", "application/json"}},
		"a deadline that has passed":  {body: message(nil), more: []string{"grpc-timeout", "0n"}},
		"a deadline that is none":     {body: message(nil), more: []string{"grpc-timeout", "soon"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := p.dialHTTP2(t)
			defer h.Conn.Close()
			block := h.block(callHeaders(putPath, append(c.more, "authorization", "Bearer "+p.write)...)...)
			first := block[:min(len(block), 16<<10)]
			h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: len(first) == len(block)})
			for rest := block[len(first):]; len(rest) > 0; {
				n := min(len(rest), 16<<10)
				h.WriteContinuation(1, n == len(rest), rest[:n])
				rest = rest[n:]
			}
			for body := c.body; len(body) > 0; {
				n := min(len(body), 16<<10)
				h.WriteData(1, n == len(body), body[:n])
				body = body[n:]
			}
			if got := h.answer(t); got == codes.OK || c.want != codes.OK && got != c.want {
				t.Errorf("ended with %v, want %v", got, c.want)
			}
			p.alive(t)
		})
	}
	p.sound(t)
}
