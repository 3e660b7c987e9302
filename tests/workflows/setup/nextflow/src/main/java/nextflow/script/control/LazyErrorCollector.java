package nextflow.script.control;

import java.util.List;
import org.codehaus.groovy.control.CompilerConfiguration;
import org.codehaus.groovy.control.ErrorCollector;
import org.codehaus.groovy.control.messages.Message;
import org.codehaus.groovy.control.messages.WarningMessage;

/**
 * Shadows Nextflow's class of this name: `nextflow lint` 25.04.4 ends with a null pointer on a file
 * that has only errors or only warnings.
 */
public class LazyErrorCollector extends ErrorCollector {
    public LazyErrorCollector(CompilerConfiguration configuration) {
        super(configuration);
    }

    @Override
    protected void failIfErrors() {}

    @Override
    public List<? extends Message> getErrors() {
        List<? extends Message> errors = super.getErrors();
        return errors == null ? List.of() : errors;
    }

    @Override
    public List<WarningMessage> getWarnings() {
        List<WarningMessage> warnings = super.getWarnings();
        return warnings == null ? List.of() : warnings;
    }
}
