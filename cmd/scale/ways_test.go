package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	scalev1 "github.com/koii-network/scale/proto/scale/v1"
)

// A way is one of the three by which a verb reaches a store: as its owner, by the private
// socket of the process that owns it, and as a client of a node.
type way struct {
	name  string
	flags []string
}

// ways are those by which a node can be reached. It makes a token for the second.
func (p *nodeProcess) ways(t *testing.T) []way {
	t.Helper()
	if p.admin == "" {
		p.admin = p.token(t, "ways", "--scope", "admin")
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(p.admin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []way{
		{"socket", []string{"--store", p.dir}},
		{"node", []string{"--node", p.grpc, "--token-file", token}},
	}
}

// A said is what a verb did, for whoever called it.
type said struct {
	stdout string
	code   int
	files  map[string]string // in OUT, by path
}

// run calls a verb. OUT in its arguments is a fresh directory.
func (w way) run(t *testing.T, line string) (said, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "x")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	args := strings.Fields(strings.ReplaceAll(line, "OUT", dir+"/"))
	out, err := os.Create(filepath.Join(t.TempDir(), "stdout")) // some verbs write to the file itself
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var stderr bytes.Buffer
	a := newApp()
	a.stdout, a.stderr, a.meter = newOutput(out), &stderr, nil
	err = a.run(t.Context(), append(args, w.flags...))
	code := exitCode(err)
	if err != nil {
		a.report(err, code)
	}
	stdout, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	s := said{strings.ReplaceAll(string(stdout), dir, "OUT"), code, map[string]string{}}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += string(b)
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += target
		}
		s.files[strings.TrimPrefix(path, dir)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, stderr.String()
}

// same fails unless a verb does the same in every way.
func same(t *testing.T, line string, all []way, as func(string) string) {
	t.Helper()
	var first said
	var errs []string
	for i, w := range all {
		got, stderr := w.run(t, line)
		got.stdout = as(got.stdout)
		errs = append(errs, w.name+": "+stderr)
		if i == 0 {
			first = got
			continue
		}
		if d := differ(first, got); d != "" {
			t.Errorf("scale %s (-%s +%s):\n%s\n%s", line, all[0].name, w.name, d, strings.Join(errs, ""))
		}
	}
}

func differ(a, b said) string {
	switch {
	case a.code != b.code:
		return fmt.Sprintf("exit codes %d, %d", a.code, b.code)
	case a.stdout != b.stdout:
		return fmt.Sprintf("-%s\n+%s", cut(a.stdout), cut(b.stdout))
	}
	for path, x := range a.files {
		if y, ok := b.files[path]; !ok || x != y {
			return fmt.Sprintf("file %s: %t\n-%s\n+%s", path, ok, cut(x), cut(y))
		}
	}
	if len(a.files) != len(b.files) {
		return fmt.Sprintf("%d files, %d files", len(a.files), len(b.files))
	}
	return ""
}

func cut(s string) string {
	if len(s) > 2000 {
		return strconv.Quote(s[:2000]) + "..."
	}
	return s
}

// What is signed at different times, and packed into frames at another end, differs in these;
// and a file is read again by as many puts as come soon after it was written.
var (
	anyTime  = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	anyEntry = regexp.MustCompile(`bafyrei[a-z2-7]{52}`)
	anySpan  = regexp.MustCompile(`"(seconds|stored_bytes|unread_bytes)":[0-9.e-]+`)
	anyPacks = regexp.MustCompile(`[0-9]+ frames`)
)

// always takes out of a text what differs for that reason alone.
func always(s string) string {
	s = anyTime.ReplaceAllString(s, "TIME")
	s = anyEntry.ReplaceAllString(s, "ENTRY")
	s = anyPacks.ReplaceAllString(s, "FRAMES")
	return anySpan.ReplaceAllString(s, `"$1":0`)
}

// TestThreeWays changes three copies of a store, each in another way, and then asks one of
// them everything in all three: the same output, the same files, the same exit codes.
func TestThreeWays(t *testing.T) {
	top := t.TempDir()
	at := func(name string) string { return filepath.Join(top, name) }
	tree := at("tree")
	strangeTree(t, tree)
	for name, b := range map[string][]byte{"big": noise(2 << 20), "text": bytes.Repeat([]byte("compressible\n"), 50_000), "empty": nil} {
		if err := os.WriteFile(at(name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	vkey := strings.TrimSpace(scale(t, "init", "--store", at("owner"), "--origin", "ways.example"))
	for _, name := range []string{"socket", "node"} {
		if err := os.CopyFS(at(name), os.DirFS(at("owner"))); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"log.key", "curator.json"} { // CopyFS opens them to others
			if err := os.Chmod(filepath.Join(at(name), "keys", key), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	scale(t, "init", "--store", at("stranger"))
	stranger := stringField(t, scale(t, "curator", "list", "--json", "--store", at("stranger")), "own")
	own := stringField(t, scale(t, "curator", "list", "--json", "--store", at("owner")), "own")
	theirs := filepath.Join(at("stranger"), "keys", "curator.json")
	in := strings.NewReplacer("TREE", tree, "BIG", at("big"), "TEXT", at("text"), "EMPTY", at("empty"), "STRANGER", stranger, "THEIRS", theirs, "OWN", own, "KEY", vkey)

	socket, node := startNode(t, &nodeStore{dir: at("socket")}), startNode(t, &nodeStore{dir: at("node")})
	all := []way{{"owner", []string{"--store", at("owner")}}, socket.ways(t)[0], node.ways(t)[1]}
	for _, line := range []string{
		"put TREE --name tree",
		"put TREE --name tree --json",
		"put BIG TEXT EMPTY --json",
		"put TREE --name tree --exclude big* --mtime --json",
		"put TEXT --name big",
		"put TEXT --name big --parent tree --parent :2 --json",
		"put BIG --name fixed --profile scale-fixed-1 --level best",
		"put BIG missing",
		"put --each EMPTY missing TEXT --json",
		"put TREE --name ../x",
		"put TREE --profile none",
		"put BIG --parent nobody",
		"put BIG --parent tree/x",
		"put BIG --name mine --curator-key THEIRS",
		"curator add STRANGER --json",
		"curator add STRANGER",
		"put BIG --name theirs --curator-key THEIRS --json",
		"put BIG --name theirs --curator-key THEIRS --json",
		"remove theirs --curator-key THEIRS",
		"remove theirs",
		"remove nobody",
		"remove text --json",
		"remove text",
		"put TEXT --json",
		"remove text",
		"curator remove OWN --curator-key THEIRS --json",
		"put TREE --name tree2",
		"curator add OWN",
		"curator remove STRANGER",
		"curator add OWN --curator-key THEIRS --json",
		"curator list --json",
		"token create ci --scope nothing",
		"token revoke nobody",
		"history tree --json",
		"ls --json",
		"log entries",
		"check --read-data",
	} {
		same(t, in.Replace(line), all, always)
	}

	// One store in all three ways: of what has been recorded all is the same to the byte.
	socket.stop(t)
	node.stop(t)
	var lines []string
	for line := range strings.SplitSeq(reads, "\n") {
		line, both := strings.CutSuffix(in.Replace(strings.TrimSpace(line)), " ±")
		if line != "" {
			lines = append(lines, line)
		}
		if both && !testing.Short() {
			lines = append(lines, line+" --json")
		}
	}
	owner := way{"owner", []string{"--store", at("node")}}
	var first []said
	var errs []string
	for _, line := range lines {
		s, stderr := owner.run(t, line)
		first, errs = append(first, s), append(errs, stderr)
	}
	p := startNode(t, &nodeStore{dir: at("node"), admin: node.admin})
	for i, line := range lines {
		for _, w := range p.ways(t) {
			got, stderr := w.run(t, line)
			if d := differ(first[i], got); d != "" {
				t.Errorf("scale %s (-owner +%s):\n%s\nowner: %s%s: %s", line, w.name, d, errs[i], w.name, stderr)
			}
		}
	}
	codes := map[int]int{}
	for _, s := range first {
		codes[s.code]++
	}
	for _, code := range []int{0, exitFailed, exitUsage, exitNotFound, exitRefused} {
		if codes[code] == 0 {
			t.Errorf("no verb ended with exit code %d", code)
		}
	}
	p.sound(t)
}

// TestOwnerCloses calls verbs while the owner of the store closes, and waits for a call of
// somebody who takes his time.
func TestOwnerCloses(t *testing.T) {
	s := newNodeStore(t)
	p := startNode(t, s, "--shutdown-timeout", "1h")
	held, err := scalev1.NewDatasetServiceClient(p.dial(t, p.write)).Put(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Send(putHeader("held", scalev1.Kind_KIND_FILE)); err != nil {
		t.Fatal(err)
	}
	p.underWay(t, 1)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, ok := p.log.wait(func(line string) bool { return strings.Contains(line, "stopping") }); !ok {
		t.Fatal("the node does not say that it stops")
	}
	named := fmt.Sprintf("in use by process %d (scale serve)", p.cmd.Process.Pid)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("file"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ls"}, {"put", file}, {"check"}, {"token", "list"}} {
		_, stderr, code := runVerb(t, append(args, "--store", s.dir, "--wait-lock", "50ms")...)
		if code != exitBusy || !strings.Contains(stderr, named) {
			t.Errorf("scale %s: exit code %d, want %d and %q: %s", args, code, exitBusy, named, stderr)
		}
	}
	// Who waits longer than the owner closes goes on.
	waits := make(chan said)
	go func() {
		got, _ := way{"", []string{"--store", s.dir, "--wait-lock", patient.String()}}.run(t, "put "+file)
		waits <- got
	}()
	if err := held.CloseSend(); err != nil {
		t.Fatal(err)
	}
	p.ended(t)
	if got := <-waits; got.code != 0 {
		t.Errorf("a put that waits ends with exit code %d", got.code)
	}
	if out := scale(t, "ls", "--store", s.dir); !strings.Contains(out, "file ") {
		t.Errorf("the put that waited is not there: %s", out)
	}
	s.check(t)
}

// TestOwnerStopsDuringPut stops the owner in the middle of a put. By the private socket
// the put takes the store over and ends well; from elsewhere it says that the node has gone
// and that a second put sends only the rest.
func TestOwnerStopsDuringPut(t *testing.T) {
	data := noise(24 << 20)
	for name, code := range map[string]int{"socket": 0, "node": exitElsewhere} {
		t.Run(name, func(t *testing.T) {
			s := newNodeStore(t)
			p := startNode(t, s, "--shutdown-timeout", "1s")
			args := []string{"put", "-", "--name", "piped", "--json"}
			reach := []string{"--store", s.dir}
			if name == "node" {
				reach = []string{"--node", p.grpc, "--node-wait", "1s"}
			}
			cmd := exec.Command("scale", append(args, reach...)...)
			cmd.Env = append(os.Environ(), "SCALE_TOKEN="+s.write)
			if name == "socket" {
				cmd.Env = os.Environ()
			}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// No pipe holds that much: it has been read, and some of it sent.
			if _, err := stdin.Write(data[:20<<20]); err != nil {
				t.Fatal(err)
			}
			p.stop(t)
			stdin.Write(data[20<<20:]) // fails if the verb has given up
			stdin.Close()
			if err := cmd.Wait(); cmd.ProcessState.ExitCode() != code {
				t.Fatalf("the put ended with %v, want %d: %s", err, code, &stderr)
			}
			s.check(t)
			if name == "socket" {
				back := filepath.Join(t.TempDir(), "back")
				scale(t, "get", "piped", "--store", s.dir, "-o", back)
				if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes come back, not what was put: %v", len(got), err)
				}
				return
			}
			if !strings.Contains(stderr.String(), "nothing recorded") || !strings.Contains(stderr.String(), "a repeated put sends only what is missing") {
				t.Errorf("the put says %s", &stderr)
			}
			if out := scale(t, "ls", "--store", s.dir); out != "" {
				t.Errorf("there is %s", out)
			}
		})
	}
}

// reads are verbs that change nothing; those with ± are called with --json too.
const reads = `
	ls ±
	ls tree ±
	ls tree -0
	ls tree/nothing
	ls big ±
	ls nobody ±
	history tree ±
	history theirs ±
	history text ±
	history nobody
	stat ±
	stat tree ±
	stat tree@1 ±
	stat tree/big ±
	stat :1 ±
	stat nobody ±
	stat tree@9
	stat tree@x
	stat text
	stat text@1
	get big
	get big -o OUTfile
	get big --range 1M:1025K
	get big --range 3M:
	get big --range 5:5
	get empty
	get tree
	get tree -o OUTtree
	get tree@1 -o OUTtree
	get tree@2 -o OUTtree
	get tree --tar
	get tree/none
	get nobody -o OUTfile ±
	get big -o BIG
	get text@1 -o OUTfile
	get theirs
	prove tree ±
	prove tree --manifest ±
	prove big --range 64K:65K --data OUTpart -o OUTproof ±
	prove big --range 9M:
	prove tree --range 0:1
	prove nobody
	export tree -o OUTtree.car ±
	export big -o OUTbig.car
	export nobody -o OUTx.car
	log ±
	log entries ±
	log entries --from 2 --to 4 ±
	log entries --from 4 --to 2
	log entries --to 99
	log consistency 2 5 ±
	log consistency 5 2
	log export OUTlog ±
	curator list ±
	curator add nonsense
	curator add STRANGER
	token list
	token revoke nobody
	check ±
	check --read-data ±
	audit tree --seed 000102030405060708090a0b0c0d0e0f ±
	audit big --seed 000102030405060708090a0b0c0d0e0f --count 3 --manifest=false ±
	audit empty --seed 000102030405060708090a0b0c0d0e0f
	audit tree --seed 00
	audit tree --seed 000102030405060708090a0b0c0d0e0f --curator STRANGER --key KEY
	remove nobody ±
	put missing --name x ±
	nonsense
	ls --nonsense
`
