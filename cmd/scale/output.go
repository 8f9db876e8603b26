package main

// What is printed where:
//
//   - Standard output is data and nothing else: what was asked for, so that it can be
//     piped on. Text is for people and line tools; --json prints one object a line.
//   - Standard error is for progress, diagnostics and errors. Progress is shown only
//     on a terminal. With --json an error is one object.
//   - Times are RFC 3339 in UTC. Sizes in JSON are bytes.
//   - A path that is not UTF-8 has its exact bytes in path_b64; "path" is then only
//     for reading. Text output quotes what could upset a terminal or a line tool,
//     unless NUL-separated output is asked for; in what is for people, errors too, it is
//     escaped.
//   - Files are written beside their place, synced and renamed.

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"golang.org/x/term"

	"github.com/koii-network/scale/grpcapi"
	"github.com/koii-network/scale/store"
)

// output is standard output with a buffer for small writes.
type output struct {
	*bufio.Writer
	file *os.File
}

func newOutput(f *os.File) *output { return &output{bufio.NewWriterSize(f, 64<<10), f} }

func (o *output) terminal() bool { return term.IsTerminal(int(o.file.Fd())) }

// printf prints a line of data.
func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.stdout, format, args...)
	return err
}

// print prints one JSON object on a line.
func (a *app) print(v any) error {
	return writeJSON(a.stdout, v)
}

// note prints a line for people on standard error. Line breaks are those of the format alone.
func (a *app) note(format string, args ...any) {
	a.meter.clear()
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			args[i] = grpcapi.Plain(v)
		case error:
			args[i] = grpcapi.Plain(v.Error())
		}
	}
	fmt.Fprintln(a.stderr, plainLines(fmt.Sprintf(format, args...)))
}

// plainLines is grpcapi.Plain of each line of a text: some errors have several.
func plainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = grpcapi.Plain(l)
	}
	return strings.Join(lines, "\n")
}

func writeJSON(w interface{ Write([]byte) (int, error) }, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// A pathView is a path in JSON.
type pathView struct {
	Path string `json:"path"`
	B64  string `json:"path_b64,omitempty"`
}

func viewPath(p string) pathView {
	v := pathView{Path: strings.ToValidUTF8(p, string(utf8.RuneError))}
	if v.Path != p {
		v.B64 = base64.StdEncoding.EncodeToString([]byte(p))
	}
	return v
}

// quote returns p as it is if that is one line of printable text which cannot be
// taken for a quoted one, and a Go string literal otherwise.
func quote(p string) string {
	if !utf8.ValidString(p) || strings.HasPrefix(p, `"`) {
		return strconv.Quote(p)
	}
	for _, r := range p {
		if !strconv.IsPrint(r) {
			return strconv.Quote(p)
		}
	}
	return p
}

func bytesText(n uint64) string { return humanize.IBytes(n) }

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// A datasetView is a dataset in JSON.
type datasetView struct {
	CID         string   `json:"cid"`
	Name        string   `json:"name"`
	Version     int      `json:"version"`
	Kind        string   `json:"kind"`
	Profile     string   `json:"profile"`
	Size        uint64   `json:"size"`
	Files       uint64   `json:"files"`
	Leaves      uint64   `json:"leaves"`
	Chunks      uint64   `json:"chunks"`
	NewBytes    uint64   `json:"new_bytes"`
	StoredBytes uint64   `json:"stored_bytes"`
	Commitment  string   `json:"commitment"`
	Mtime       bool     `json:"mtime"`
	Entry       int64    `json:"entry"`
	EntryCID    string   `json:"entry_cid"`
	Parents     []string `json:"parents"`
	Previous    *int64   `json:"previous,omitempty"`
	Time        string   `json:"time"`
	Curator     string   `json:"curator"`
}

func viewDataset(d store.Dataset) datasetView {
	v := datasetView{
		CID: d.CID.String(), Name: d.Name, Version: d.Version, Kind: d.Kind.String(), Profile: d.Profile,
		Size: d.Size, Files: d.Files, Leaves: d.Leaves, Chunks: d.Chunks, NewBytes: d.NewBytes, StoredBytes: d.Stored,
		Commitment: d.Commitment.String(), Mtime: d.Times, Entry: d.Entry, EntryCID: d.EntryCID.String(),
		Parents: []string{}, Time: timeText(d.Time), Curator: d.Curator.String(),
	}
	for _, p := range d.Parents {
		v.Parents = append(v.Parents, p.String())
	}
	if d.Previous >= 0 {
		v.Previous = &d.Previous
	}
	return v
}
