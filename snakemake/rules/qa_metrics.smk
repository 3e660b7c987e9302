rule qa_metrics:
    input:
        image=scan_image,
        mask="<results>/{scan}/{scan}_{mask}.nii.gz",
        reference=scan_reference,
    output:
        report(
            "<results>/{scan}/{scan}_{mask}_qa.json",
            caption="../report/qa_metrics.rst",
            category="Measures",
            labels={"scan": "{scan}", "mask": "{mask}"},
        ),
    log:
        "<logs>/{scan}/qa_metrics_{mask}.log",
    container:
        config["container"]
    threads: 2
    resources:
        mem_mb=memory_mb(2000),
        runtime=60,
    params:
        reference=lambda wildcards, input: (
            f"--reference {input.reference}" if input.reference else ""
        ),
        extra=config["extra"]["qa_metrics"],
    shell:
        "voxmask-qa-metrics --input {input.mask:q} --image {input.image:q} {params.reference}"
        " --report {output:q} --threads {threads} {params.extra} 2> {log:q}"
