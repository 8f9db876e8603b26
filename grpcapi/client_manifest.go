package grpcapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koii-network/scale/dag"
	"github.com/koii-network/scale/dag/extsort"
	scalev1 "github.com/koii-network/scale/proto/scale/v1"
	"github.com/koii-network/scale/store/ingest"
)

// A manifest is the list of a dataset's entries and chunks as Commit sends it. What is
// longer than a little goes to a temporary file: it is 40 bytes for each chunk, for a
// dataset of any size.
//
// It is a run of records: a number of the oneof of CommitRequest, 4 bytes of length, and
// the bytes of a CommitEntry or of a ChunkList.
type manifest struct {
	scratch extsort.Scratch
	file    extsort.File // nil before it is needed
	written int64        // bytes in the file
	buf     []byte       // what is behind them

	start  int64 // of the records of the entry under way
	record int64 // of the one under way
}

const (
	manifestMemory = 1 << 20
	// recordChunks bounds the chunks of a record.
	recordChunks = 1000

	recordEntry  = 2 // CommitRequest.entries
	recordChunk  = 3 // CommitRequest.chunks
	recordHeader = 1 + 4
)

var _ ingest.Manifest = (*manifest)(nil)

func (m *manifest) size() int64 { return m.written + int64(len(m.buf)) }

// open begins a record.
func (m *manifest) open(kind byte) error {
	if len(m.buf) >= manifestMemory {
		if m.file == nil {
			var err error
			if m.file, err = m.scratch(); err != nil {
				return fmt.Errorf("%w: %w", extsort.ErrScratch, err)
			}
		}
		if _, err := m.file.WriteAt(m.buf, m.written); err != nil {
			return fmt.Errorf("%w: %w", extsort.ErrScratch, err)
		}
		m.written += int64(len(m.buf))
		m.buf = m.buf[:0]
	}
	m.record = m.size()
	m.buf = append(m.buf, kind, 0, 0, 0, 0)
	return nil
}

// close ends the record under way, which is all in memory.
func (m *manifest) close() {
	at := m.record - m.written
	n := m.size() - m.record - recordHeader
	m.buf[at+1], m.buf[at+2], m.buf[at+3], m.buf[at+4] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}

// Begin implements ingest.Manifest.
func (m *manifest) Begin(e ingest.Entry) error {
	m.start = m.size()
	if err := m.open(recordEntry); err != nil {
		return err
	}
	ce := &scalev1.CommitEntry{Path: []byte(e.Path), Target: []byte(e.Target)}
	usual := e.Attr.Mode // links have none
	switch e.Kind {
	case dag.KindDir:
		ce.Kind, usual = scalev1.Kind_KIND_DIRECTORY, dag.DefaultDirMode
	case dag.KindLink:
		ce.Kind = scalev1.Kind_KIND_LINK
	default:
		ce.Kind, usual = scalev1.Kind_KIND_FILE, dag.DefaultFileMode
	}
	if e.Attr.Mode != usual {
		ce.Mode = &e.Attr.Mode
	}
	if !e.Attr.Mtime.IsZero() {
		ce.Mtime = timestamppb.New(e.Attr.Mtime)
	}
	var err error
	m.buf, err = proto.MarshalOptions{}.MarshalAppend(m.buf, ce)
	return err
}

// Chunk implements ingest.Manifest.
func (m *manifest) Chunk(c ingest.Chunk) error {
	kind, field := m.buf[m.record-m.written], protowire.Number(6) // CommitEntry.chunks
	if m.size()-m.record > recordChunks*(chunkRecord+3) {
		m.close()
		if err := m.open(recordChunk); err != nil {
			return err
		}
		kind = recordChunk
	}
	if kind == recordChunk {
		field = 1 // ChunkList.chunks
	}
	m.buf = protowire.AppendTag(m.buf, field, protowire.BytesType)
	m.buf = protowire.AppendVarint(m.buf, uint64(2+len(c.Digest)+1+protowire.SizeVarint(uint64(c.Size))))
	m.buf = protowire.AppendTag(m.buf, 1, protowire.BytesType)
	m.buf = protowire.AppendBytes(m.buf, c.Digest[:])
	m.buf = protowire.AppendTag(m.buf, 2, protowire.VarintType)
	m.buf = protowire.AppendVarint(m.buf, uint64(c.Size))
	return nil
}

// chunkRecord is about what a chunk takes.
const chunkRecord = 38

// End implements ingest.Manifest.
func (m *manifest) End(keep bool) error {
	if keep {
		m.close()
		return nil
	}
	// What is in the file behind the start is overwritten.
	if m.start >= m.written {
		m.buf = m.buf[:m.start-m.written]
	} else {
		m.written, m.buf = m.start, m.buf[:0]
	}
	return nil
}

// messages yields the manifest as CommitRequests, marshalled, each valid until the next.
func (m *manifest) messages(yield func([]byte) error) error {
	r := bufio.NewReaderSize(io.MultiReader(io.NewSectionReader(m.file, 0, m.written), bytes.NewReader(m.buf)), 64<<10)
	var head [recordHeader]byte
	var out, record []byte // out: the content of a CommitEntries or ChunkList
	kind := byte(0)
	flush := func() error {
		if len(out) == 0 {
			return nil
		}
		msg := protowire.AppendTag(nil, protowire.Number(kind), protowire.BytesType)
		msg = protowire.AppendBytes(msg, out)
		out = out[:0]
		return yield(msg)
	}
	for {
		if _, err := io.ReadFull(r, head[:]); err == io.EOF {
			return flush()
		} else if err != nil {
			return fmt.Errorf("%w: %w", extsort.ErrScratch, err)
		}
		n := int(head[1])<<24 | int(head[2])<<16 | int(head[3])<<8 | int(head[4])
		if n > manifestMemory {
			return fmt.Errorf("%w: a record of %d bytes", extsort.ErrScratch, n)
		}
		if cap(record) < n {
			record = make([]byte, n)
		}
		if _, err := io.ReadFull(r, record[:n]); err != nil {
			return fmt.Errorf("%w: %w", extsort.ErrScratch, err)
		}
		if head[0] != kind || len(out)+n > manifestMessage {
			if err := flush(); err != nil {
				return err
			}
		}
		if kind = head[0]; kind == recordChunk {
			out = append(out, record[:n]...)
			continue
		}
		out = protowire.AppendTag(out, 1, protowire.BytesType) // CommitEntries.entries
		out = protowire.AppendBytes(out, record[:n])
	}
}

// manifestMessage is about how long a message of a manifest is.
const manifestMessage = 256 << 10

// free gives back what the manifest holds.
func (m *manifest) free() error {
	m.buf = nil
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}
