// Spider: fetch pages by eight workers, in whatever order they come, as in Pool.apply_async. The pages are served by this program
// itself, so that it works without a network.
//
//	go run ./examples/spider
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"

	"github.com/procpool/procpool/client"
	"github.com/procpool/procpool/client/local"
	"github.com/procpool/procpool/workerproc"
)

// page is what to download, and where to.
type page struct{ URL, File string }

var download = workerproc.Func("download", func(ctx context.Context, p page) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", p.URL, resp.Status)
	}
	f, err := os.Create(p.File)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, resp.Body)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return n, err
})

// Spider downloads pages in the background.
type Spider struct {
	pool   *client.Pool
	untold sync.WaitGroup // downloads whose end has not been printed
}

// NewSpider creates a pool with 8 workers.
func NewSpider(ctx context.Context) (*Spider, error) {
	pool, err := local.OpenPool(ctx, client.Workers(8))
	return &Spider{pool: pool}, err
}

// Download adds a task that downloads the URL and saves it as the given file.
func (s *Spider) Download(ctx context.Context, url, file string) {
	r := client.ApplyAsync(ctx, s.pool, download, page{url, file})
	s.untold.Add(1)
	r.OnSuccess(func(n int64) {
		defer s.untold.Done()
		fmt.Println(n, "bytes from", url)
	})
	r.OnError(func(err error) {
		defer s.untold.Done()
		fmt.Println(err)
	})
}

// Close waits for all the tasks to be done.
func (s *Spider) Close(ctx context.Context) error {
	if err := s.pool.Close(); err != nil {
		return err
	}
	err := s.pool.Join(ctx)
	s.untold.Wait() // a callback comes after its result
	return err
}

func main() {
	workerproc.Main()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, "This is the page %s.\n", r.URL.Path)
	}))
	defer site.Close()
	dir, err := os.MkdirTemp("", "spider")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	spider, err := NewSpider(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"news", "about", "broken", "contact"} {
		spider.Download(ctx, site.URL+"/"+name, filepath.Join(dir, name))
	}
	if err := spider.Close(ctx); err != nil {
		log.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(files), "pages saved")
}
