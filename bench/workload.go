package main

import (
	"archive/tar"
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// generation changes whenever the data does, so that what an older program made is
// made anew.
const generation = 1

// A workload is one input and what is done to it.
type workload struct {
	name string
	what string
	path string // file or directory
	base string // a file that was put before under the same name, "" if none
	tree bool
	// small has files of 1 KiB put into the store afterwards.
	small bool
	size  int64 // bytes of content
}

// sizes are the amounts of data of one scale.
type sizes struct {
	source, lines, random int64 // bytes
	files                 int
}

var scales = map[string]sizes{
	"full":  {source: 1 << 30, lines: 2 << 30, random: 1 << 30, files: 100_000},
	"quick": {source: 32 << 20, lines: 32 << 20, random: 32 << 20, files: 1_000},
}

// Names of what prepare makes in the data directory.
const (
	sourceFile = "source.tar"
	fewFile    = "source-few-edits.tar"
	manyFile   = "source-many-edits.tar"
	linesFile  = "lines.jsonl"
	randomFile = "random.bin"
	filesDir   = "files"
)

// Sizes of the edits of a second version.
const (
	fewEdit  = 64 << 10
	manyEdit = 4 << 10
)

// prepare returns the workloads of a scale, after making their data below dir if a
// run before did not leave it there.
func prepare(dir, scale string, progress io.Writer) ([]workload, error) {
	n, ok := scales[scale]
	if !ok {
		return nil, fmt.Errorf("no scale %q: quick or full", scale)
	}
	data := filepath.Join(dir, "data-"+scale)
	// The source text is Go's own, so another Go makes other data.
	want := fmt.Sprintf("%d %s %+v\n", generation, runtime.Version(), n)
	stamp := filepath.Join(data, "stamp")
	if have, err := os.ReadFile(stamp); err != nil || string(have) != want {
		start := time.Now()
		fmt.Fprintf(progress, "making the data in %s\n", data)
		if err := os.RemoveAll(data); err != nil {
			return nil, err
		}
		if err := generate(data, n); err != nil {
			return nil, fmt.Errorf("making the data: %w", err)
		}
		if err := os.WriteFile(stamp, []byte(want), 0o644); err != nil {
			return nil, err
		}
		fmt.Fprintf(progress, "made it in %.0f s\n", time.Since(start).Seconds())
	}

	at := func(name string) string { return filepath.Join(data, name) }
	workloads := []workload{
		{name: "source", what: "source code, one tar", path: at(sourceFile), small: true},
		{name: "lines", what: "JSON lines with signatures", path: at(linesFile)},
		{name: "random", what: "incompressible bytes", path: at(randomFile)},
		{name: "files", what: fmt.Sprintf("%d files of 1 to 16 KiB", n.files), path: at(filesDir), tree: true},
		{name: "few-edits", what: "source again, 2 % new in edits of 64 KiB", path: at(fewFile), base: at(sourceFile)},
		{name: "many-edits", what: "source again, 2 % new in edits of 4 KiB", path: at(manyFile), base: at(sourceFile)},
	}
	for i := range workloads {
		w := &workloads[i]
		err := filepath.WalkDir(w.path, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			w.size += info.Size()
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return workloads, nil
}

// generate makes all data of one scale. Each part has a seed of its own.
func generate(dir string, n sizes) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	sources, err := sourceFiles()
	if err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	err = errors.Join(
		write(at(sourceFile), func(w io.Writer) error { return sourceTar(w, &text{files: sources, plain: true, seed: 1}, n.source) }),
		write(at(linesFile), func(w io.Writer) error { return jsonLines(w, 2, n.lines) }),
		write(at(randomFile), func(w io.Writer) error {
			_, err := io.CopyN(w, chacha(3), n.random)
			return err
		}),
		smallFiles(at(filesDir), &text{files: sources, seed: 4}, 4, n.files),
	)
	if err != nil {
		return err
	}
	return errors.Join(
		edit(at(fewFile), at(sourceFile), &text{files: sources, seed: 5}, 5, fewEdit),
		edit(at(manyFile), at(sourceFile), &text{files: sources, seed: 6}, 6, manyEdit),
	)
}

func chacha(seed uint64) *rand.ChaCha8 {
	var s [32]byte
	s[0] = byte(seed)
	return rand.NewChaCha8(s)
}

// write makes a file out of what fill writes.
func write(name string, fill func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	return errors.Join(fill(w), w.Flush(), f.Close())
}

// sourceFiles lists the source tree of the installed Go toolchain: real source code
// that is there wherever this program runs.
func sourceFiles() ([]string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	root, err := filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(string(out)), "src"))
	if err != nil {
		return nil, err
	}
	var files []string
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, name)
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no source files in %s", root)
	}
	return files, err
}

// A text is an endless sequence of source files. Go's source tree holds about 100 MB;
// to get more that is as real, it is gone through again with the letters permuted.
// Every frequency and repetition stays, and so does how well it compresses, but no
// chunk equals one of another turn, which would flatter whoever deduplicates.
type text struct {
	files []string
	plain bool // the first turn leaves the letters as they are
	seed  uint64

	turn, i int
	letters [256]byte
	rest    []byte // of the current file, for Read
}

// next returns a file that is not empty, and which turn and path it is from.
func (t *text) next() (turn int, name string, data []byte, err error) {
	for len(data) == 0 {
		if t.i == 0 {
			t.permute()
		}
		turn, name = t.turn, t.files[t.i]
		if data, err = os.ReadFile(name); err != nil {
			return 0, "", nil, err
		}
		if t.i++; t.i == len(t.files) {
			t.i = 0
			t.turn++
		}
	}
	for i, c := range data {
		data[i] = t.letters[c]
	}
	return turn, name, data, nil
}

func (t *text) permute() {
	for i := range t.letters {
		t.letters[i] = byte(i)
	}
	if t.plain && t.turn == 0 {
		return
	}
	for i, to := range rand.New(rand.NewPCG(t.seed, uint64(t.turn))).Perm(26) {
		t.letters['a'+i] = byte('a' + to)
		t.letters['A'+i] = byte('A' + to)
	}
}

func (t *text) Read(p []byte) (int, error) {
	if len(t.rest) == 0 {
		var err error
		if _, _, t.rest, err = t.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// sourceTar writes a tar archive of at least size bytes.
func sourceTar(w io.Writer, t *text, size int64) error {
	count := &counter{w: w}
	out := tar.NewWriter(count)
	root := commonDir(t.files)
	for count.n < size {
		turn, name, data, err := t.next()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: fmt.Sprintf("go-%d/%s", turn, rel), Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(1767225600, 0)}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := out.Write(data); err != nil {
			return err
		}
	}
	return out.Close()
}

// commonDir returns the deepest directory that holds all of the sorted files.
func commonDir(files []string) string {
	dir := filepath.Dir(files[0])
	last := files[len(files)-1]
	for !strings.HasPrefix(last, dir+string(filepath.Separator)) {
		dir = filepath.Dir(dir)
	}
	return dir
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// jsonLines writes whole lines, at least size bytes: what a task node logs, each line
// with fields that repeat, numbers that do not, and a signature of 64 random bytes.
func jsonLines(w io.Writer, seed uint64, size int64) error {
	noise := chacha(seed)
	r := rand.New(noise)
	key := func() string {
		var b [32]byte
		noise.Read(b[:])
		return base64.RawURLEncoding.EncodeToString(b[:])
	}
	var nodes, tasks []string
	for range 2000 {
		nodes = append(nodes, key())
	}
	for range 50 {
		tasks = append(tasks, key())
	}
	// Few nodes and tasks make most of the traffic.
	node := rand.NewZipf(r, 1.2, 8, uint64(len(nodes)-1))
	task := rand.NewZipf(r, 1.3, 4, uint64(len(tasks)-1))
	methods := []string{"GET", "GET", "GET", "POST", "PUT"}
	resources := []string{"submissions", "audits", "distributions", "proofs", "heartbeat"}
	statuses := []string{"200", "200", "200", "200", "204", "304", "404", "503"}
	pick := func(s []string) string { return s[r.IntN(len(s))] }

	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var line []byte
	var signature [64]byte
	for written := int64(0); written < size; written += int64(len(line)) {
		at = at.Add(time.Duration(r.IntN(20_000)) * time.Microsecond)
		line = append(line[:0], `{"time":"`...)
		line = at.AppendFormat(line, "2006-01-02T15:04:05.000000Z")
		line = append(line, `","level":"info","service":"task-node","version":"2.14.3","node":"`...)
		line = append(line, nodes[node.Uint64()]...)
		line = append(line, `","task":"`...)
		line = append(line, tasks[task.Uint64()]...)
		line = append(line, `","round":`...)
		line = strconv.AppendInt(line, at.Unix()/3600-490_000, 10)
		line = append(line, `,"method":"`...)
		line = append(line, pick(methods)...)
		line = append(line, `","resource":"/v1/tasks/current/`...)
		line = append(line, pick(resources)...)
		line = append(line, `","status":`...)
		line = append(line, pick(statuses)...)
		line = append(line, `,"bytes":`...)
		line = strconv.AppendInt(line, int64(r.ExpFloat64()*4000), 10)
		line = append(line, `,"micros":`...)
		line = strconv.AppendInt(line, int64(r.ExpFloat64()*900), 10)
		line = append(line, `,"scheme":"ed25519","message":"submission accepted for the current round","signature":"`...)
		noise.Read(signature[:])
		line = base64.StdEncoding.AppendEncode(line, signature[:])
		line = append(line, "\"}\n"...)
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// smallFiles makes count files of 1 to 16 KiB, small ones more often, a hundred to a
// directory.
func smallFiles(dir string, t *text, seed uint64, count int) error {
	r := rand.New(chacha(seed))
	buf := make([]byte, 16<<10)
	for i := range count {
		sub := filepath.Join(dir, fmt.Sprintf("part-%02d", i/10_000), fmt.Sprintf("dir-%02d", i/100%100))
		if i%100 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		// Log-uniform: as many between 1 and 2 KiB as between 8 and 16.
		part := r.Float64() * 4
		size := min(1024<<int(part)+int((part-float64(int(part)))*float64(int(1024)<<int(part))), len(buf))
		if _, err := io.ReadFull(t, buf[:size]); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%06d.go", i)), buf[:size], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// edit copies src to dst with 2 % of it new: stretches of about length bytes replaced
// by other text of a different length.
func edit(dst, src string, t io.Reader, seed uint64, length int64) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	r := rand.New(chacha(seed))
	places := make([]int64, info.Size()/50/length)
	for i := range places {
		places[i] = r.Int64N(info.Size())
	}
	slices.Sort(places)
	around := func() int64 { return length/2 + r.Int64N(length) }
	return write(dst, func(w io.Writer) error {
		pos := int64(0)
		for _, place := range places {
			// A place inside what was just replaced moves to its end.
			if place > pos {
				if _, err := io.CopyN(w, io.NewSectionReader(in, pos, place-pos), place-pos); err != nil {
					return err
				}
				pos = place
			}
			if _, err := io.CopyN(w, t, around()); err != nil {
				return err
			}
			pos = min(pos+around(), info.Size())
		}
		_, err := io.Copy(w, io.NewSectionReader(in, pos, info.Size()-pos))
		return err
	})
}
