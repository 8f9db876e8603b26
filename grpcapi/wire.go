package grpcapi

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store"
)

// Messages that carry much data, or many chunks, are read by hand: their bytes stay in the
// transport's buffers until they are consumed, and a list of chunks is not turned into
// several times its size of objects.

// maxHead bounds what is not data in a message that is read by hand: a header, or an entry
// without its data and chunks.
const maxHead = 64 << 10

// A body is data in the transport's buffers. The zero value is empty.
type body struct{ r *mem.Reader }

func newBody(data mem.BufferSlice) body { return body{data.Reader()} }

func (b *body) len() int {
	if b.r == nil {
		return 0
	}
	return b.r.Remaining()
}

// read takes what fits into p.
func (b *body) read(p []byte) int {
	n, _ := b.r.Read(p) // has no other error than its end
	return n
}

// free gives the buffers back.
func (b *body) free() {
	if b.r != nil {
		b.r.Close()
		b.r = nil
	}
}

// eachField calls f for the fields of a message, with v for those of bytes. raw is the
// field with its tag.
func eachField(b []byte, f func(num protowire.Number, typ protowire.Type, v, raw []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed(protowire.ParseError(n))
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			return malformed(protowire.ParseError(m))
		}
		var v []byte
		if typ == protowire.BytesType {
			v, _ = protowire.ConsumeBytes(b[n : n+m])
		}
		if err := f(num, typ, v, b[:n+m]); err != nil {
			return err
		}
		b = b[n+m:]
	}
	return nil
}

func malformed(err error) error {
	return fmt.Errorf("%w: not a protobuf message: %w", store.ErrInvalid, err)
}

func wrongType(what string) error {
	return fmt.Errorf("%w: %s is not of its type", store.ErrInvalid, what)
}

// within returns the part of data that v, a slice of buf's bytes, is.
func within(buf mem.Buffer, v []byte) body {
	if len(v) == 0 {
		return body{}
	}
	all := buf.ReadOnlyData()
	from := cap(all) - cap(v)
	part := mem.BufferSlice{buf.Slice(from, from+len(v))}
	b := newBody(part)
	part.Free() // the body has a reference of its own
	return b
}

// wholeField returns the bytes of a message that has nothing but the field num.
func wholeField(data mem.BufferSlice, num protowire.Number) (body, bool) {
	if len(data) == 0 {
		return body{}, false
	}
	head := data[0].ReadOnlyData()
	if len(head) < 2 || head[0] != byte(num<<3)|byte(protowire.BytesType) {
		return body{}, false
	}
	size, n := binary.Uvarint(head[1:])
	if n <= 0 || uint64(data.Len()-1-n) != size {
		return body{}, false
	}
	b := newBody(data)
	b.r.Discard(1 + n)
	return b, true
}

// A putMessage is a PutRequest. One of its fields is set, or has; if it brings several
// entries, entry is one after the other of them.
type putMessage struct {
	header *scalev1.PutHeader
	entry  *scalev1.PutEntry // without its data
	data   body              // of the message, or of the entry
	has    bool              // data
	more   moreEntries
}

// moreEntries are the entries of a message that are still to come.
type moreEntries struct {
	buf  mem.Buffer // nil: there are none
	rest []byte     // of buf
}

func (e *moreEntries) free() {
	if e.buf != nil {
		e.buf.Free()
		*e = moreEntries{}
	}
}

// Numbers of fields that are read by hand; TestFieldNumbers compares them with the API.
const (
	putHeaderField  = 1
	putEntryField   = 2
	putDataField    = 3
	putEntriesField = 4
	entryDataField  = 6

	uploadFrameField = 1
	uploadDataField  = 2
	frameCodecField  = 1
	framePlainField  = 2
	frameSealedField = 3
	frameChunksField = 4
	frameDataField   = 5

	commitHeaderField  = 1
	commitEntriesField = 2
	commitChunksField  = 3
	commitSignedField  = 4
	entriesField       = 1
	entryChunksField   = 6
	listChunksField    = 1

	chunkDigestField = 1
	chunkSizeField   = 2
)

func (m *putMessage) decode(data mem.BufferSlice) error {
	*m = putMessage{}
	if b, ok := wholeField(data, putDataField); ok {
		m.data, m.has = b, true
		return nil
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	err := eachField(buf.ReadOnlyData(), func(num protowire.Number, typ protowire.Type, v, _ []byte) error {
		if num > putEntriesField {
			return nil
		}
		if typ != protowire.BytesType {
			return wrongType("a part of a put")
		}
		m.free()
		*m = putMessage{} // of several the last counts
		switch num {
		case putHeaderField:
			if len(v) > maxHead {
				return tooLong("header", len(v))
			}
			m.header = &scalev1.PutHeader{}
			return unmarshal(v, m.header)
		case putEntryField:
			return m.decodeEntry(buf, v)
		case putEntriesField:
			buf.Ref()
			m.more = moreEntries{buf, v}
			return nil
		}
		m.data, m.has = within(buf, v), true
		return nil
	})
	if err == nil && m.more.buf != nil {
		if err = m.next(); err == io.EOF {
			err = invalidf("entries", "a message without one")
		}
	}
	if err != nil {
		m.free()
	}
	return err
}

// next goes on to the next entry of the message. io.EOF: it has no more.
func (m *putMessage) next() error {
	m.data.free()
	for len(m.more.rest) > 0 {
		num, typ, n := protowire.ConsumeTag(m.more.rest)
		if n < 0 {
			return malformed(protowire.ParseError(n))
		}
		size := protowire.ConsumeFieldValue(num, typ, m.more.rest[n:])
		if size < 0 {
			return malformed(protowire.ParseError(size))
		}
		field := m.more.rest[n : n+size]
		m.more.rest = m.more.rest[n+size:]
		if num != entriesField {
			continue
		}
		if typ != protowire.BytesType {
			return wrongType("an entry")
		}
		v, _ := protowire.ConsumeBytes(field)
		return m.decodeEntry(m.more.buf, v)
	}
	m.more.free()
	return io.EOF
}

func tooLong(what string, n int) error {
	return fmt.Errorf("%w: the %s has %d bytes, must be at most %d", store.ErrInvalid, what, n, maxHead)
}

func (m *putMessage) decodeEntry(buf mem.Buffer, b []byte) error {
	head, err := split(b, entryDataField, func(v []byte) error {
		m.data.free()
		m.data = within(buf, v)
		return nil
	})
	if err == nil {
		m.entry = &scalev1.PutEntry{}
		err = unmarshal(head, m.entry)
	}
	return err
}

func (m *putMessage) free() {
	m.data.free()
	m.more.free()
}

// split returns a message without the fields num, and gives these to f.
func split(b []byte, num protowire.Number, f func(v []byte) error) ([]byte, error) {
	var head []byte
	err := eachField(b, func(n protowire.Number, typ protowire.Type, v, raw []byte) error {
		if n != num {
			if len(head)+len(raw) > maxHead {
				return tooLong("entry", len(head)+len(raw))
			}
			head = append(head, raw...)
			return nil
		}
		if typ != protowire.BytesType {
			return wrongType("a field")
		}
		return f(v)
	})
	return head, err
}

// atMost refuses a message of more fields than that.
func atMost(b []byte, most int) error {
	n := 0
	return eachField(b, func(protowire.Number, protowire.Type, []byte, []byte) error {
		if n++; n > most {
			return fmt.Errorf("%w: more than %d", store.ErrInvalid, most)
		}
		return nil
	})
}
