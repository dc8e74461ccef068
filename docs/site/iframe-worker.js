// Search runs in a worker, which browsers refuse to start for pages that were opened as files. For those, this class
// takes the worker's place and runs its script in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.onmessage = this.onerror = this.onmessageerror = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessage = (data) => setTimeout(() => this.onmessage?.({ data: structuredClone(data) }));
      this.ready = new Promise((resolve, reject) => {
        const script = inner.document.createElement("script");
        script.src = new URL(url, document.baseURI).href;
        script.onload = () => resolve(inner);
        script.onerror = reject;
        inner.document.body.append(script);
      });
      this.ready.catch((event) => this.onerror?.(event));
    }

    postMessage(data) {
      const copy = structuredClone(data);
      this.ready.then((inner) => inner.onmessage?.({ data: copy }), () => {});
    }

    terminate() {
      this.frame.remove();
    }
  };
}
