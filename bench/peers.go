package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
)

// object is what zstd compresses into; the other tools have stores.
func object(store string) string { return filepath.Join(store, "data.zst") }

// peerTools returns the programs that SCALE is compared with, each as its makers set it up
// by default unless a comment says otherwise, and yardsticks: what bytes cost that are only
// compressed or only hashed. Everything that they keep lies beside the store, and none of
// them talks to a network.
func peerTools(dir string) []tool {
	return []tool{restic(dir), kopia(dir), ipfs(dir), borg(), casync(), desync(), zstd(), openssl()}
}

func mkdir(store string) []command { return []command{{args: []string{"mkdir", store}}} }

func restic(dir string) tool {
	bin := filepath.Join(dir, "restic")
	run := func(store string, args ...string) command {
		return command{
			args: append([]string{bin, "--quiet", "--repo", store, "--cache-dir", store + ".cache"}, args...),
			env:  []string{"RESTIC_PASSWORD=bench"},
		}
	}
	return tool{
		name:     "restic",
		encrypts: true,
		version:  command{args: []string{bin, "version"}},
		prepare:  func(store string) []command { return []command{run(store, "init")} },
		put:      func(j job) command { return run(j.store, "backup", j.input) },
		get:      func(j job) command { return run(j.store, "dump", "latest", j.input) },
		restore:  func(j job) command { return run(j.store, "restore", "latest:"+j.input, "--target", j.out) },
		check:    func(j job) command { return run(j.store, "check", "--read-data") },
	}
}

// kopia has its fastest settings that still compress: BLAKE3, zstd-fastest, chunks of 1 MiB.
// It encrypts always. Maintenance, which is due once after a repository was made, does not
// run in the middle of a measurement.
func kopia(dir string) tool {
	bin := filepath.Join(dir, "kopia")
	run := func(store string, args ...string) command {
		own := []string{bin, "--config-file=" + store + ".config", "--log-dir=" + store + ".log", "--no-progress", "--no-auto-maintenance"}
		return command{
			args: append(own, args...),
			env:  []string{"KOPIA_PASSWORD=bench", "KOPIA_CHECK_FOR_UPDATES=false"},
		}
	}
	return tool{
		name:     "kopia",
		encrypts: true,
		version:  command{args: []string{bin, "--version"}, env: []string{"KOPIA_CHECK_FOR_UPDATES=false"}},
		prepare: func(store string) []command {
			return append(mkdir(store),
				run(store, "repository", "create", "filesystem", "--path="+store, "--cache-directory="+store+".cache",
					"--block-hash=BLAKE3-256", "--object-splitter=DYNAMIC-1M-BUZHASH"),
				run(store, "policy", "set", "--global", "--compression=zstd-fastest"))
		},
		put: func(j job) command { return run(j.store, "snapshot", "create", "--json", j.input) },
		id: func(said []byte) (string, error) {
			var s struct {
				RootEntry struct{ Obj string }
			}
			err := json.Unmarshal(said, &s)
			return s.RootEntry.Obj, err
		},
		get: func(j job) command {
			if j.tree {
				return run(j.store, "restore", j.id, "/dev/stdout", "--mode=tar")
			}
			return run(j.store, "show", j.id)
		},
		restore: func(j job) command { return run(j.store, "restore", j.id, j.out) },
		check:   func(j job) command { return run(j.store, "snapshot", "verify", "--verify-files-percent=100") },
	}
}

// ipfs is kubo with its store for blocks as files, which it has by default and which its
// makers leave unsynced; nothing is compressed. Chunks of 1 MiB and leaves without wrapping
// are faster than its old defaults and what its newer profiles take. What is added stays
// pinned, as by default: what is not pinned is as good as gone. The node is offline, and
// tells nobody what it does.
func ipfs(dir string) tool {
	bin := filepath.Join(dir, "ipfs")
	env := func(store string) []string { return []string{"IPFS_PATH=" + store, "IPFS_TELEMETRY=off"} }
	run := func(store string, args ...string) command {
		return command{args: append([]string{bin, "--offline"}, args...), env: env(store)}
	}
	return tool{
		name:    "ipfs",
		version: command{args: []string{bin, "version"}},
		prepare: func(store string) []command {
			return []command{run(store, "init", "--empty-repo", "--profile=flatfs")}
		},
		put: func(j job) command {
			return run(j.store, "add", "--quieter", "--recursive", "--progress=false", "--cid-version=1", "--raw-leaves", "--chunker=size-1048576", j.input)
		},
		id: trimmed,
		get: func(j job) command {
			if !j.tree {
				return run(j.store, "cat", "--progress=false", j.id)
			}
			// An archive goes to a file only, whose name has to end in .tar.
			c := shell(`ln -sf /dev/stdout "$1.tar" && exec "$2" --offline get --progress=false --archive --output "$1.tar" "$3"`,
				j.store, bin, j.id)
			c.env = env(j.store)
			return c
		},
		restore: func(j job) command { return run(j.store, "get", "--progress=false", "--output", j.out, j.id) },
		check:   func(j job) command { return run(j.store, "repo", "verify") },
	}
}

func trimmed(said []byte) (string, error) {
	id := strings.TrimSpace(string(said))
	if id == "" || strings.ContainsAny(id, " \n") {
		return "", fmt.Errorf("it printed %q, not one name", said)
	}
	return id, nil
}

// borg does not encrypt here, so that it is as fast as it can be.
func borg() tool {
	env := func(store string) []string {
		return []string{"BORG_BASE_DIR=" + store + ".base", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"}
	}
	run := func(store string, args ...string) command {
		return command{args: append([]string{"borg"}, args...), env: env(store)}
	}
	archive := func(j job) string { return fmt.Sprintf("%s::%d", j.store, j.n) }
	return tool{
		name:    "borg",
		version: command{args: []string{"borg", "--version"}},
		prepare: func(store string) []command { return []command{run(store, "init", "--encryption=none", store)} },
		put:     func(j job) command { return run(j.store, "create", "--compression=zstd,1", archive(j), j.input) },
		get: func(j job) command {
			if j.tree {
				return run(j.store, "export-tar", archive(j), "-")
			}
			return run(j.store, "extract", "--stdout", archive(j), strings.TrimPrefix(j.input, "/"))
		},
		restore: func(j job) command {
			// It extracts to where it is, with all directories above the input.
			above := fmt.Sprint(strings.Count(j.input, "/"))
			c := shell(`mkdir "$1" && cd "$1" && exec borg extract --strip-components "$2" "$3"`, j.out, above, archive(j))
			c.env = env(j.store)
			return c
		},
		check: func(j job) command { return run(j.store, "check", "--verify-data", j.store) },
	}
}

// index is where casync and desync keep what leads to the chunks of the nth put.
func index(j job) string {
	ext := ".caibx" // of a file
	if j.tree {
		ext = ".caidx"
	}
	return filepath.Join(j.store, fmt.Sprint(j.n)+ext)
}

// casync writes files to files only, and no tar archives. It has no command that checks a
// store: its digest reads all of an index's chunks.
func casync() tool {
	run := func(j job, verb string, args ...string) command {
		return command{args: append([]string{"casync", verb, "--store=" + filepath.Join(j.store, "chunks.castr")}, args...)}
	}
	return tool{
		name:    "casync",
		version: command{args: []string{"casync", "--version"}},
		prepare: mkdir,
		put:     func(j job) command { return run(j, "make", "--compression=zstd", index(j), j.input) },
		get:     func(j job) command { return run(j, "extract", index(j), j.out) },
		toFile:  true,
		noTar:   true,
		restore: func(j job) command { return run(j, "extract", index(j), j.out) },
		check:   func(j job) command { return run(j, "digest", index(j)) },
	}
}

// desync is in no registry that everyone has, so it is compared where it is installed.
func desync() tool {
	run := func(j job, verb string, args ...string) command {
		return command{args: append([]string{"desync", verb, "-s", filepath.Join(j.store, "chunks")}, args...)}
	}
	return tool{
		name:     "desync",
		optional: true,
		version:  command{args: []string{"desync", "--help"}},
		prepare: func(store string) []command {
			return []command{{args: []string{"mkdir", "-p", filepath.Join(store, "chunks")}}}
		},
		put: func(j job) command {
			if j.tree {
				return run(j, "tar", "-i", index(j), j.input)
			}
			return run(j, "make", index(j), j.input)
		},
		get: func(j job) command {
			if j.tree {
				return run(j, "untar", "-i", "--output-format=gnu-tar", index(j), "-")
			}
			return run(j, "cat", index(j))
		},
		restore: func(j job) command {
			c := run(j, "untar", "-i", index(j), j.out)
			return shell(`mkdir "$1" && shift && exec "$@"`, append([]string{j.out}, c.args...)...)
		},
		check: func(j job) command { return run(j, "verify") },
	}
}

// zstd is a yardstick: it finds nothing that it has seen before, and syncs nothing.
func zstd() tool {
	return tool{
		name:     "zstd",
		replaces: true,
		version:  command{args: []string{"zstd", "--version"}},
		prepare:  mkdir,
		put: func(j job) command {
			if j.tree {
				return shell(`tar -C "$1" -cf - . | zstd -q -f -1 -T2 -o "$2"`, j.input, object(j.store))
			}
			return command{args: []string{"zstd", "-q", "-f", "-1", "-T2", "-o", object(j.store), j.input}}
		},
		get: func(j job) command { return command{args: []string{"zstd", "-q", "-d", "-c", object(j.store)}} },
		restore: func(j job) command {
			return shell(`mkdir "$2" && zstd -q -d -c "$1" | tar -C "$2" -xf -`, object(j.store), j.out)
		},
		check: func(j job) command { return command{args: []string{"zstd", "-q", "-t", object(j.store)}} },
	}
}

// openssl is the yardstick for bytes that do not compress: it hashes them and keeps nothing.
func openssl() tool {
	return tool{
		name:    "openssl",
		only:    []string{"random"},
		version: command{args: []string{"openssl", "version"}},
		prepare: mkdir,
		put:     func(j job) command { return command{args: []string{"openssl", "dgst", "-sha256", j.input}} },
	}
}
