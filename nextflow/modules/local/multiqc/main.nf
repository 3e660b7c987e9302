process MULTIQC {
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container 'quay.io/biocontainers/multiqc:1.35--pyhdfd78af_0'

    input:
    path config
    path content

    output:
    path 'multiqc_report.html', emit: report
    path 'multiqc_report_data', emit: data
    tuple val("${task.process}"), val('multiqc'), eval("multiqc --version | sed 's/.* //'"), emit: versions_multiqc

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    // MultiQC shows pictures by this ending of their names.
    """
    for picture in *.png; do
        [ ! -e "\$picture" ] || mv "\$picture" "\${picture%.png}_mqc.png"
    done
    multiqc --force --filename multiqc_report.html --config ${config} ${args} .
    """

    stub:
    """
    mkdir multiqc_report_data
    touch multiqc_report.html
    """
}
